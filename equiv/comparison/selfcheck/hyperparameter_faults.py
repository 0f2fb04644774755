"""Faults planted in a builder: one layer of the built model gets a wrong hyperparameter; the port is traced again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv.backends.build import MappedPort, call_user_code
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.leaf_table import map_port
from equiv.backends.registry import load_hyperparameters, load_library
from equiv.comparison.selfcheck.detection import NOTHING_MOVES, Detector, detect, explain_undetected, output_names
from equiv.comparison.selfcheck.wrong_values import HyperparameterRule, wrong_values
from equiv.core.leaves import LeafTable
from equiv.core.selfcheck_results import BUILDER, MutantResult
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase
from equiv.programs.held_leaves import hold_leaves
from equiv.programs.program import Program, Programs
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.traced_port import TracedPort, trace_port_float64, trace_programs

MODEL_PLACE = "model"
"""Place of a fault with which the model cannot be built or traced."""


@dataclass(frozen=True, eq=False)
class HyperparameterFault:
    """One wrong value, and every layer of one class that has the same right value.

    Attributes:
        rule: the kind.
        layers: the hyperparameter in each of them.
        wrong: the value.
    """

    rule: HyperparameterRule
    layers: tuple[Hyperparameter, ...]
    wrong: Any

    def site(self, tried: int) -> str:
        """Describe the hyperparameter: where it is, its wrong and its right value."""
        one = self.layers[tried]
        where = f"{one.layer} {one.place}" if one.place else one.layer
        count = f", {tried + 1} of {len(self.layers)} layers" if len(self.layers) > 1 else ""
        return f"{where}: {one.name} {_value_text(self.wrong)} for {_value_text(one.value)}{count}"


def plant_in_builder(
    built_case: BuiltCase, detector: Detector, native: Callable[[], Detector], rules: Sequence[HyperparameterRule]
) -> Iterator[MutantResult]:
    """Plant wrong hyperparameters in one candidate.

    Args:
        built_case: the case.
        detector: the candidate in float64.
        native: the candidate in its own precision, for faults that float64 hides, such as a wrong dtype.
        rules: kinds of fault.
    """
    port = detector.port.traced.port
    library = load_hyperparameters(port.library)
    if library is None:
        return
    builder, request = built_case.case.models[port.name], replace(built_case.request, port=port.name)
    look = partial(library.hyperparameters, builder, request)
    for fault in group_faults(call_user_code(port.name, "looking for hyperparameters", look), rules):
        for tried, which in enumerate(fault.layers[: fault.rule.tries]):
            altered = partial(library.altered, builder, request, which)
            outcome = _judge_wrong_value(built_case, detector, native, partial(altered, fault.wrong))
            if outcome.get("place") == MODEL_PLACE:
                outcome = _compare_with_control(
                    outcome, _judge_wrong_value(built_case, detector, native, partial(altered, which.value))
                )
            result = MutantResult(port.name, fault.rule.kind, BUILDER, fault.site(tried), **outcome)
            yield result
            if result.outcome in ("killed", "equivalent"):
                break


def group_faults(found: Sequence[Hyperparameter], rules: Sequence[HyperparameterRule]) -> Iterator[HyperparameterFault]:
    """Yield every wrong value once for each class of layer, attribute and right value, in the order of the kinds."""
    groups: dict[tuple[str, ...], tuple[HyperparameterRule, list[Hyperparameter], Any]] = {}
    for one in found:
        for rule, wrong in wrong_values(one.name, one.value, tuple(rules)):
            key = (rule.kind, one.layer, one.name, _value_text(one.value), _value_text(wrong))
            groups.setdefault(key, (rule, [], wrong))[1].append(one)
    for rule in rules:
        for kind, layers, wrong in groups.values():
            if kind is rule:
                yield HyperparameterFault(rule, tuple(layers), wrong)


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return getattr(value, "__name__", None) or str(value)


def _judge_wrong_value(
    built_case: BuiltCase, detector: Detector, native: Callable[[], Detector], make: Callable[[], Any]
) -> dict[str, Any]:
    """Judge one wrong hyperparameter, and return fields of a `MutantResult`."""
    traced = detector.port.traced
    name = traced.port.name
    try:
        port = call_user_code(name, "building the model", make)
        table = map_port(built_case.case.layers, port, load_library(port.library))
        held = hold_leaves(MappedPort(port, table), built_case.request)
        port, table = held.port, held.table
        if other := _changed_leaf(traced.table, table):
            return {"outcome": "killed", "check": "structure", **other}
        tracer = replace(traced.tracer, port=port, table=table)
        own, raw = call_user_code(name, "tracing", partial(trace_programs, tracer))
        programs = trace_port_float64(TracedPort(tracer, own, raw, traced.initialise))
    except EquivError as error:
        return {"outcome": "killed", "check": "structure", "place": MODEL_PLACE, "reason": str(error)}
    if isinstance(programs, str):
        return {"outcome": "killed", "check": "structure", "place": MODEL_PLACE, "reason": programs}
    decided = _judge_programs(detector, programs)
    hidden_in_float64 = decided["outcome"] == "equivalent" or decided.get("reason") == NOTHING_MOVES
    return (
        _judge_programs(native(), own)
        if hidden_in_float64 and _native_programs_differ(traced.programs, own)
        else decided
    )


def _compare_with_control(outcome: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """Keep an error as `killed` only if setting the right value in the same way works."""
    if control["outcome"] == "equivalent":
        return outcome
    reason = f"the layer cannot be changed: with the value that it has, {control.get('reason') or control['place']}"
    return {"outcome": "unidentifiable", "reason": reason}


def _native_programs_differ(ours: Programs, theirs: Programs) -> bool:
    """Whether programs that are the same in float64 differ in their own precision."""
    return any(
        output_names(one) != output_names(other)
        for one, other in zip(all_programs(ours), all_programs(theirs), strict=True)
    )


def _changed_leaf(ours: LeafTable, theirs: LeafTable) -> dict[str, str]:
    """Find the first leaf that differs, as place and reason."""
    had, has = ({leaf.name: leaf.spec for leaf in table.leaves} for table in (ours, theirs))
    for name in (*had, *has):
        if had.get(name) != has.get(name):
            return {"place": f"leaf {name}", "reason": f"{has.get(name, 'missing')} for {had.get(name, 'none')}"}
    return {}


def _judge_programs(detector: Detector, programs: Programs) -> dict[str, Any]:
    """Judge programs as a run would: outputs and their shapes, draws, then values."""
    for program in all_programs(programs):
        if other := _changed_signature(detector.original(program), program):
            return {"outcome": "killed", **other}
    changed = [program for program in all_programs(programs) if not detector.same(program)]
    port = replace(detector.port, programs=programs)
    reasons: list[tuple[str, str]] = []
    for program in changed:
        where, unnoticed = detect(detector, program, port)
        if where:
            return {"outcome": "killed", **where}
        reasons.append(explain_undetected(detector, program, unnoticed, port))
    order = ("survived", "unidentifiable", "equivalent")
    none = ("equivalent", "traced to the same programs: the value is not used")
    outcome, reason = min(reasons, key=lambda one: order.index(one[0]), default=none)
    return {"outcome": outcome, "reason": reason}


def _changed_signature(original: Program, program: Program) -> dict[str, str]:
    """Find the first output or draw whose number, shape or dtype differs."""
    had, has = (dict(zip(one.outputs, one.jaxpr.out_avals, strict=True)) for one in (original, program))
    for name in (*had, *has):
        before, now = (_aval_text(avals.get(name)) for avals in (had, has))
        if before != now:
            check = "train" if program.name.is_training else "outputs"
            return {"check": check, "place": str(name), "reason": f"{now} for {before}"}
    before, now = ([(draw.shape, draw.bit_width) for draw in one.draws] for one in (original, program))
    if before != now:
        reason = f"draws {now} for {before}"
        return {"check": "randomness", "place": str(program.name), "reason": reason}
    return {}


def _aval_text(aval: Any) -> str:
    return "nothing" if aval is None else f"{aval.dtype}{list(aval.shape)}"
