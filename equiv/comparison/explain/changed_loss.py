"""The loss of a gradient, changed and differentiated again: what a change of the forward pass makes of a gradient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.source_info_util import current_name_stack, user_context

from equiv.comparison.explain.recording import Changes, Operation
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.programs.draws import count_draws
from equiv.programs.jaxpr import (
    INSTALL_PATHS,
    called_jaxpr,
    has_user_line,
    open_jaxpr,
    read_scan,
    visit_equations,
)
from equiv.programs.primitives import PLACEMENTS
from equiv.programs.program import Program
from equiv.programs.reevaluation import Reevaluation
from equiv.programs.trace import (
    DifferentiatedLoss,
    NamedInputs,
    NamedOutputs,
    differentiated_loss,
    name_gradient,
    trace_function,
)
from equiv.programs.traced_port import TracedPort
from equiv.programs.train_step import is_typed_key, key_kind
from equiv.programs.transform import make_draws_inputs

HOLD = "stop_gradient"

RULES = frozenset(["custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"])
"""Calls with a derivative of their own."""

USUAL_RULE = "custom_jvp_call"

OWN_RULES = RULES - {USUAL_RULE}
"""Those whose derivative is not that of their operations, as a rule: jax writes its own `relu` with the other kind."""

REFUSED = (TypeError, ValueError, IndexError, KeyError, NotImplementedError, AssertionError)
"""What jax raises where a changed loss cannot be differentiated: a value that is not known yet, or of another loop,
a shape that does not fit, an operation without a derivative.
"""


@dataclass(frozen=True, eq=False)
class HeldTrial:
    """A change of what is held fixed in the candidate's loss.

    Attributes:
        text: the change, in words.
        ours: the reference's operation there.
        theirs: the candidate's.
        dropped: equations that no longer hold their operand fixed.
        held: equations to those of their operands that are held fixed.
    """

    text: str = ""
    ours: Operation | None = None
    theirs: Operation | None = None
    dropped: frozenset[int] = frozenset()
    held: Mapping[int, int] = field(default_factory=dict)


def trace_loss(port: TracedPort, name: ProgramName) -> Program:
    """Trace the loss of a gradient in float64, with what it draws as inputs.

    Args:
        port: whose.
        name: of the gradient.
    """
    loss, run = _loss_of(port, name)
    program = trace_function(name, run, loss.specs)
    random = {one: spec for one, spec in loss.specs.items() if one.is_random}
    if count_draws(program.jaxpr) or not has_own_rules(program):
        return make_draws_inputs(program, True)

    # Nothing is drawn, and calls with rules of their own have to stay what they are.
    def run_without_keys(inputs: NamedInputs) -> NamedOutputs:
        return run({**inputs, **{one: _unused_key(spec) for one, spec in random.items()}})

    rest = {one: spec for one, spec in loss.specs.items() if one not in random}
    return trace_function(name, run_without_keys, rest)


def _loss_of(port: TracedPort, name: ProgramName) -> tuple[DifferentiatedLoss, Callable[[NamedInputs], NamedOutputs]]:
    loss = differentiated_loss(replace(port.tracer, float64=True), name)

    def run(inputs: NamedInputs) -> NamedOutputs:
        return {OutputName(name, "loss"): loss.run(inputs, {one: inputs[one] for one in loss.wanted})}

    return loss, run


def trace_raw_loss(port: TracedPort, name: ProgramName) -> Program:
    """Trace the loss of a gradient in float64 as it is written, with calls and keys; arguments as of `trace_loss`."""
    loss, run = _loss_of(port, name)
    return trace_function(name, run, loss.specs)


def count_held(loss: Program) -> int:
    """Number of operations that hold a value fixed; a softmax of jax has one, too."""
    return sum(eqn.primitive.name == HOLD for _, eqn in visit_equations(loss.jaxpr))


def _is_written_here(call: Any) -> bool:
    """Whether the function that is called is no installed package's: one that jax does not name is the user's."""
    info = getattr(open_jaxpr(called_jaxpr(call))[0], "debug_info", None)
    file = str(getattr(info, "func_src_info", None) or "").rpartition(" at ")[2]
    return not file.startswith((INSTALL_PATHS["purelib"], INSTALL_PATHS["platlib"]))


def has_own_rules(program: Program) -> bool:
    """Whether a program calls functions whose derivative its author wrote."""
    return any(
        eqn.primitive.name in OWN_RULES or (eqn.primitive.name == USUAL_RULE and _is_written_here(eqn))
        for _, eqn in visit_equations(program.jaxpr)
    )


def _unused_key(spec: Any) -> Any:
    """An array in place of a key, or of random state, that nothing draws with."""
    if is_typed_key(spec):
        return jnp.broadcast_to(jax.random.key(0, impl=key_kind(spec)), spec.shape)
    return jnp.zeros(spec.shape, spec.dtype)


class ChangedLoss(Reevaluation):
    """Evaluation of a loss under a trace with other values held fixed, and by way of the changes of a run.

    Rules of derivatives stay, but for calls inside which something is changed.

    Attributes:
        stash: place to the results of the equation there, where edits read them.
        given: the inputs of the loss.
    """

    def __init__(self, trial: HeldTrial, changes: Changes, given: Mapping[InputName, Any]) -> None:
        self.trial, self.changes, self.given = trial, changes, given
        self.stash: dict[tuple[Any, ...], Sequence[Any]] = {}
        places = (*(one.place for one in (*changes.edits, *changes.loops)), *changes.used)
        self.opened = {id(eqn) for place in places for eqn in place[:-1]}

    def compute(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an equation itself."""
        return ins if eqn.primitive.name in PLACEMENTS else super().equation(eqn, ins)

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an equation of any kind, under its own source line."""
        info = eqn.source_info
        line = next((one for one in (eqn, *reversed(self.calls)) if has_user_line(one)), eqn).source_info.traceback
        with user_context(line, name_stack=current_name_stack() + info.name_stack):
            return self._changed(eqn, ins)

    def _changed(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if id(eqn) in self.trial.dropped:
            return ins
        if id(eqn) in self.trial.held:
            index = self.trial.held[id(eqn)]
            ins = [lax.stop_gradient(value) if place == index else value for place, value in enumerate(ins)]
        if eqn.primitive.name in RULES and id(eqn) not in self.opened:
            return self.compute(eqn, ins)
        return super().step(eqn, ins)

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an equation that is no call, by way of the edit at its place."""
        place = (*self.calls, eqn)
        edit: Any = self.changes.by_place.get(place)
        outs = self.compute(eqn, ins) if edit is None else edit.change(self, eqn, list(ins))
        if place in self.changes.used:
            self.stash[place] = outs
        return outs

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `scan`, by way of the changes of its start and of its direction."""
        loop, place, calls = read_scan(eqn), (*self.calls, eqn), self.calls
        reverse = loop.reverse
        for edit in (edit for edit in self.changes.loops if edit.place == place):
            ins = edit.start(list(ins))
            reverse ^= edit.reverse
        fixed, start, scanned = loop.split(ins)

        def step(carry: tuple[Any, ...], slices: list[Any]) -> tuple[Any, Any]:
            outs = self.run(loop.body, [*fixed, *carry, *slices])
            return tuple(outs[: loop.carries]), tuple(outs[loop.carries :])

        self.calls = place
        carry, stacked = lax.scan(step, tuple(map(jnp.asarray, start)), scanned, loop.length, reverse)
        self.calls = calls
        return [*carry, *stacked]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `while_loop`, the changes in whose body are those of each iteration."""
        calls, self.calls = self.calls, (*self.calls, eqn)
        outs = super().while_loop(eqn, ins)
        self.calls = calls
        return outs

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `cond`, likewise."""
        calls, self.calls = self.calls, (*self.calls, eqn)
        outs = super().cond(eqn, ins)
        self.calls = calls
        return outs


def differentiate_loss(
    port: TracedPort, name: ProgramName, loss: Program, trial: HeldTrial, changes: Changes | None = None
) -> Program | None:
    """The gradient of a changed loss, as a program; None: it has none.

    Args:
        port: whose loss it is.
        name: of the gradient.
        loss: the loss, of `trace_loss`.
        trial: what is held fixed.
        changes: of the loss besides.
    """
    wanted = differentiated_loss(replace(port.tracer, float64=True), name).wanted
    changes = changes or Changes()
    specs: dict[InputName, Any] = {
        one: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        for one, aval in zip(loss.inputs, loss.jaxpr.in_avals, strict=True)
    }

    def run(inputs: NamedInputs) -> NamedOutputs:
        def value_of(changed: NamedInputs) -> Any:
            given = changes.apply_to_inputs({**inputs, **changed})
            evaluation = ChangedLoss(trial, changes, given)
            return evaluation.run(loss.jaxpr, [given[one] for one in loss.inputs])[0]

        value, gradients = jax.value_and_grad(value_of)({one: inputs[one] for one in wanted if one in inputs})
        return {
            OutputName(name, "loss"): value,
            **{name_gradient(name, one): array for one, array in gradients.items()},
        }

    try:
        return trace_function(name, run, specs)
    except REFUSED:
        return None  # that change is not tried
