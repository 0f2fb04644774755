"""Causes of a difference in gradients alone: what one port holds fixed (`stop_gradient`) and the other does not.

A gradient's program does not show it any more: it is tried on the loss, which is differentiated again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from equiv.comparison.explain.alignment import Alignment, SideRuns, align_runs, join_runs
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import Operation, record_program
from equiv.comparison.explain.search import is_within_after
from equiv.comparison.explain.trying import Search
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.programs.draws import count_draws
from equiv.programs.jaxpr import visit_equations
from equiv.programs.program import Program
from equiv.programs.reevaluation import Reevaluation
from equiv.programs.trace import NamedInputs, NamedOutputs, differentiated_loss, name_gradient, trace_function
from equiv.programs.traced_port import TracedPort
from equiv.programs.train_step import is_typed_key, key_kind
from equiv.programs.transform import make_draws_inputs

HOLD = "stop_gradient"

RULES = frozenset(["custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"])
"""Calls with a derivative of their own."""

OWN_RULES = RULES - {"custom_jvp_call"}
"""Those whose derivative is not that of their operations, as a rule: jax writes its own `relu` with the other kind."""

MOST = 12
"""Most changes that are tried."""


@dataclass(frozen=True, eq=False)
class HeldTrial:
    """A change of what is held fixed in the candidate's loss.

    Attributes:
        text: the change, in words.
        dropped: equations that no longer hold their operand fixed.
        held: equations to those of their operands that are held fixed.
        ours: the reference's operation there.
        theirs: the candidate's.
    """

    text: str
    ours: Operation | None
    theirs: Operation | None
    dropped: frozenset[int] = frozenset()
    held: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class HeldCause:
    """A change that makes the gradients the same.

    Attributes:
        trial: the change.
        alignment: of both losses.
    """

    trial: HeldTrial
    alignment: Alignment


def find_held(search: Search, name: ProgramName, ports: tuple[TracedPort, TracedPort]) -> HeldCause | None:
    """Find what one port holds fixed, and the other does not, that explains a difference in gradients.

    Call it inside `jax.enable_x64(True)`.

    Args:
        search: in the gradients' programs.
        name: of these.
        ports: the reference and the candidate.
    """
    losses = [_trace_loss(port, name) for port in ports]
    if not any(HOLD in str(loss.jaxpr) for loss in losses):
        return None
    alignment = _align_losses(search.runs, losses)
    for trial in _list_trials(alignment, search.runs.names):
        changed = _differentiate(ports[1], name, losses[1], trial)
        if changed is not None and is_within_after(search, changed):
            return HeldCause(trial, alignment)
    return None


def _trace_loss(port: TracedPort, name: ProgramName) -> Program:
    loss = differentiated_loss(replace(port.tracer, float64=True), name)

    def run(inputs: NamedInputs) -> NamedOutputs:
        return {OutputName(name, "loss"): loss.run(inputs, {one: inputs[one] for one in loss.wanted})}

    program = trace_function(name, run, loss.specs)
    random = {one: spec for one, spec in loss.specs.items() if one.is_random}
    own_rules = any(eqn.primitive.name in OWN_RULES for _, eqn in visit_equations(program.jaxpr))
    if count_draws(program.jaxpr) or not own_rules:
        return make_draws_inputs(program, True)

    # Nothing is drawn, and calls with rules of their own have to stay what they are.
    def run_without_keys(inputs: NamedInputs) -> NamedOutputs:
        return run({**inputs, **{one: _unused_key(spec) for one, spec in random.items()}})

    rest = {one: spec for one, spec in loss.specs.items() if one not in random}
    return trace_function(name, run_without_keys, rest)


def _unused_key(spec: Any) -> Any:
    """An array in place of a key, or of random state, that nothing draws with."""
    if is_typed_key(spec):
        return jnp.broadcast_to(jax.random.key(0, impl=key_kind(spec)), spec.shape)
    return jnp.zeros(spec.shape, spec.dtype)


def _align_losses(runs: ProgramRuns, losses: Sequence[Program]) -> Alignment:
    sides: list[SideRuns] = []
    for number, loss in enumerate(losses):
        ran, moved = ([record_program(loss, pair[number]) for pair in some[:1]] for some in (runs.inputs, runs.nudged))
        sides.append(join_runs(ran, moved))
    return align_runs(sides[0], sides[1], ())


def _list_trials(alignment: Alignment, names: tuple[str, str]) -> Iterator[HeldTrial]:
    """Yield each holding that one side alone has, left out of the candidate or added to it; then all of them."""
    ours, theirs = (_holdings(side) for side in (alignment.reference, alignment.candidate))
    held_there = {value for operation in ours for value in alignment.reference.matches[operation.ins[0]]}
    extra = [operation for operation in theirs if operation.ins[0] not in held_there]
    for operation in extra[:MOST]:
        twin = _counterpart(alignment, operation)
        yield HeldTrial(f"no `{HOLD}`", twin, operation, frozenset([id(operation.eqn)]))
    if len(extra) > 1:
        everywhere = frozenset(id(operation.eqn) for operation in extra)
        text = f"no `{HOLD}` at {len(everywhere)} places"
        yield HeldTrial(text, _counterpart(alignment, extra[0]), extra[0], everywhere)
    held_here = {value for operation in theirs for value in alignment.candidate.matches[operation.ins[0]]}
    for operation in [one for one in ours if one.ins[0] not in held_here][:MOST]:
        for reader in alignment.reference.readers.get(operation.outs[0], ()):
            index = reader.ins.index(operation.outs[0])
            for value in alignment.reference.matches[reader.outs[0]] if reader.outs else ():
                twin = alignment.candidate.recording.maker_of(value)
                if twin is not None and twin.primitive == reader.primitive and len(twin.ins) == len(reader.ins):
                    text = f"the `{HOLD}` that {names[1]} leaves out"
                    yield HeldTrial(text, operation, twin, held={id(twin.eqn): index})


def _holdings(side: Any) -> list[Operation]:
    """The operations that hold a value fixed which depends on an input; of a loop one each."""
    found: dict[tuple[Any, ...], Operation] = {}
    for operation in side.recording.operations:
        if operation.primitive == HOLD and side.recording.moving[operation.ins[0]]:
            found.setdefault(operation.key, operation)
    return list(found.values())


def _counterpart(alignment: Alignment, held: Operation) -> Operation | None:
    """The reference's operation with the result of the one that reads what the candidate holds fixed."""
    for reader in alignment.candidate.readers.get(held.outs[0], ()):
        for out in reader.outs:
            for value in alignment.candidate.matches[out]:
                if (maker := alignment.reference.recording.maker_of(value)) is not None:
                    return maker
    return next(
        filter(None, map(alignment.reference.recording.maker_of, alignment.candidate.matches[held.ins[0]])), None
    )


class _ChangedLoss(Reevaluation):
    """Evaluation of a loss with other values held fixed; rules of derivatives stay."""

    def __init__(self, trial: HeldTrial) -> None:
        self.trial = trial

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if id(eqn) in self.trial.dropped:
            return ins
        if id(eqn) in self.trial.held:
            index = self.trial.held[id(eqn)]
            ins = [jax.lax.stop_gradient(value) if place == index else value for place, value in enumerate(ins)]
        if eqn.primitive.name in RULES:
            return self.equation(eqn, ins)
        return super().step(eqn, ins)


def _differentiate(port: TracedPort, name: ProgramName, loss: Program, trial: HeldTrial) -> Program | None:
    """The gradient of a changed loss, as a program; None: it has none."""
    wanted = differentiated_loss(replace(port.tracer, float64=True), name).wanted
    specs: dict[InputName, Any] = {
        one: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        for one, aval in zip(loss.inputs, loss.jaxpr.in_avals, strict=True)
    }

    def run(inputs: NamedInputs) -> NamedOutputs:
        def value_of(changed: NamedInputs) -> Any:
            given = {**inputs, **changed}
            return _ChangedLoss(trial).run(loss.jaxpr, [given[one] for one in loss.inputs])[0]

        value, gradients = jax.value_and_grad(value_of)({one: inputs[one] for one in wanted if one in inputs})
        return {
            OutputName(name, "loss"): value,
            **{name_gradient(name, one): array for one, array in gradients.items()},
        }

    try:
        return trace_function(name, run, specs)
    except Exception:  # noqa: BLE001 - the loss was traced in another way: that change is not tried
        return None
