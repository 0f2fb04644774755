"""Faults planted in a builder: one layer of the built model gets a wrong hyperparameter; the port is traced anew."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv import backends
from equiv.backends.build import guarded
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.leaf_table import map_port
from equiv.compare.selfcheck.detection import UNMOVED, Oracle, explained, looked_at, named
from equiv.compare.selfcheck.wrong_values import Rule, wrong_values
from equiv.core.leaves import LeafTable
from equiv.core.selfcheck_results import BUILDER, Kill
from equiv.errors import EquivError
from equiv.programs.built_case import Workshop
from equiv.programs.program import Program, Programs
from equiv.programs.prover.prove import every
from equiv.programs.traced_port import Traced, lift_port, trace_programs

MODEL = "model"
"""Where a fault is noticed that keeps the model from being built or traced."""


@dataclass(frozen=True, eq=False)
class Plant:
    """One wrong value, and every layer of one class that has the same right one.

    Attributes:
        rule: the kind.
        layers: the hyperparameter in each of them.
        wrong: the value.
    """

    rule: Rule
    layers: tuple[Hyperparameter, ...]
    wrong: Any

    def site(self, tried: int) -> str:
        """The hyperparameter, where it is, what it was and is now."""
        one = self.layers[tried]
        where = f"{one.layer} {one.place}" if one.place else one.layer
        count = f", {tried + 1} of {len(self.layers)} layers" if len(self.layers) > 1 else ""
        return f"{where}: {one.name} {_shown(self.wrong)} for {_shown(one.value)}{count}"


def builder_kills(
    workshop: Workshop, oracle: Oracle, native: Callable[[], Oracle], rules: Sequence[Rule]
) -> Iterator[Kill]:
    """Plant wrong hyperparameters in one candidate.

    Args:
        workshop: the case.
        oracle: the candidate in float64.
        native: the candidate in its own precision, for what float64 cannot tell: a wrong dtype.
        rules: kinds of fault.
    """
    backend = oracle.trial.traced.port.backend
    library = backends.load_hyperparameters(backend)
    if library is None:
        return
    builder = workshop.case.models[backend]
    look = partial(library.hyperparameters, builder, workshop.request)
    for plant in plants(guarded(backend, "looking for hyperparameters", look), rules):
        for tried, which in enumerate(plant.layers[: plant.rule.tries]):
            altered = partial(library.altered, builder, workshop.request, which)
            outcome = _outcome(workshop, oracle, native, partial(altered, plant.wrong))
            if outcome.get("place") == MODEL:
                outcome = _controlled(outcome, _outcome(workshop, oracle, native, partial(altered, which.value)))
            kill = Kill(backend, plant.rule.kind, BUILDER, plant.site(tried), **outcome)
            yield kill
            if kill.outcome in ("noticed", "equivalent"):
                break


def plants(found: Sequence[Hyperparameter], rules: Sequence[Rule]) -> Iterator[Plant]:
    """Every wrong value once for each class of layer, attribute and right value, in the order of the kinds."""
    groups: dict[tuple[str, ...], tuple[Rule, list[Hyperparameter], Any]] = {}
    for one in found:
        for rule, wrong in wrong_values(one.name, one.value, tuple(rules)):
            key = (rule.kind, one.layer, one.name, _shown(one.value), _shown(wrong))
            groups.setdefault(key, (rule, [], wrong))[1].append(one)
    for rule in rules:
        for kind, layers, wrong in groups.values():
            if kind is rule:
                yield Plant(rule, tuple(layers), wrong)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return getattr(value, "__name__", None) or str(value)


def _outcome(
    workshop: Workshop, oracle: Oracle, native: Callable[[], Oracle], make: Callable[[], Any]
) -> dict[str, Any]:
    """What becomes of one wrong hyperparameter, as fields of a `Kill`."""
    traced = oracle.trial.traced
    backend = traced.port.backend
    try:
        port = guarded(backend, "building the model", make)
        table = map_port(workshop.case.layers, port, backends.load(backend))
        if other := _other_leaf(traced.table, table):
            return {"outcome": "noticed", "check": "structure", **other}
        tracer = replace(traced.tracer, port=port, table=table)
        own, raw = guarded(backend, "tracing", partial(trace_programs, tracer))
        programs = lift_port(Traced(tracer, own, raw, traced.start))
    except EquivError as error:
        return {"outcome": "noticed", "check": "structure", "place": MODEL, "reason": str(error)}
    if isinstance(programs, str):
        return {"outcome": "noticed", "check": "structure", "place": MODEL, "reason": programs}
    decided = _decided(oracle, programs)
    untold = decided["outcome"] == "equivalent" or decided.get("reason") == UNMOVED
    return _decided(native(), own) if untold and _differs(traced.programs, own) else decided


def _controlled(outcome: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """An error, unless the right value, put there in the same way, is no better: then it is not the value's."""
    if control["outcome"] == "equivalent":
        return outcome
    reason = f"the layer cannot be changed: with the value that it has, {control.get('reason') or control['place']}"
    return {"outcome": "unidentifiable", "reason": reason}


def _differs(ours: Programs, theirs: Programs) -> bool:
    """Whether programs that are the same in float64 are others in their own precision."""
    return any(named(one) != named(other) for one, other in zip(every(ours), every(theirs), strict=True))


def _other_leaf(ours: LeafTable, theirs: LeafTable) -> dict[str, str]:
    """The first leaf that is another, as a place and what it is."""
    had, has = ({leaf.name: leaf.spec for leaf in table.leaves} for table in (ours, theirs))
    for name in (*had, *has):
        if had.get(name) != has.get(name):
            return {"place": f"leaf {name}", "reason": f"{has.get(name, 'missing')} for {had.get(name, 'none')}"}
    return {}


def _decided(oracle: Oracle, programs: Programs) -> dict[str, Any]:
    """As a run would decide: outputs and their shapes, draws, then values."""
    for program in every(programs):
        if other := _other_kind(oracle.original(program), program):
            return {"outcome": "noticed", **other}
    changed = [program for program in every(programs) if not oracle.same(program)]
    trial = replace(oracle.trial, programs=programs)
    reasons: list[tuple[str, str]] = []
    for program in changed:
        where, unnoticed = looked_at(oracle, program, trial)
        if where:
            return {"outcome": "noticed", **where}
        reasons.append(explained(oracle, program, unnoticed, trial))
    order = ("survived", "unidentifiable", "equivalent")
    none = ("equivalent", "traced to the same programs: it is not read there")
    outcome, reason = min(reasons, key=lambda one: order.index(one[0]), default=none)
    return {"outcome": outcome, "reason": reason}


def _other_kind(original: Program, program: Program) -> dict[str, str]:
    """Outputs or draws that are of another number or shape."""
    had, has = (dict(zip(one.outputs, one.jaxpr.out_avals, strict=True)) for one in (original, program))
    for name in (*had, *has):
        before, now = (_kind(avals.get(name)) for avals in (had, has))
        if before != now:
            check = "train" if program.name in ("begin", "step") else "outputs"
            return {"check": check, "place": f"{program.name}: {name}", "reason": f"{now} for {before}"}
    before, now = ([(draw.shape, draw.bit_width) for draw in one.draws] for one in (original, program))
    if before != now:
        reason = f"draws {now} for {before}"
        return {"check": "randomness", "place": program.name, "reason": reason}
    return {}


def _kind(aval: Any) -> str:
    return "nothing" if aval is None else f"{aval.dtype}{list(aval.shape)}"
