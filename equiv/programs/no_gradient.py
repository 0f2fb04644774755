"""Which gradients of a port there are not: of whole numbers, and through a `while`."""

from typing import Any

import jax

from equiv.core.no_gradient import NoGradient
from equiv.core.output_name import ProgramName
from equiv.programs.dead_carries import has_while, remove_dead
from equiv.programs.jaxpr import locate_equation, visit_equations
from equiv.programs.trace import (
    DifferentiatedLoss,
    NamedInputs,
    Tracer,
    differentiated_loss,
    gradient_call,
    is_inexact,
    trace_forward,
)


def find_no_gradient(tracer: Tracer, program: ProgramName) -> NoGradient | None:
    """Say why a gradient does not exist; None: it does.

    Args:
        tracer: the port.
        program: name of the gradient.
    """
    forward = trace_forward(tracer, gradient_call(tracer, program))
    outputs = [
        aval for name, aval in zip(forward.outputs, forward.jaxpr.out_avals, strict=True) if name.kind == "output"
    ]
    loss = differentiated_loss(tracer, program)
    # A loss of the case may be a float all the same, such as the share of right answers.
    if not any(map(is_inexact, outputs)) and not is_inexact(jax.eval_shape(loss.run, loss.specs, loss.wanted)):
        return NoGradient(tracer.port.name, program, "no float")
    if not has_while(forward.jaxpr):
        return None
    found = _find_differentiated_while(loss)
    return None if found is None else NoGradient(tracer.port.name, program, "while", found)


def _find_differentiated_while(loss: DifferentiatedLoss) -> str | None:
    """The line of a `while` whose results are differentiated; None: there is none.

    What is linear in the tangents of a function is what jax transposes for its gradient, and a `while` has no transpose
    (jax 0.10.2, `_while_transpose_error`).
    """

    inner: list[Any] = []

    def linear(inputs: NamedInputs, at: NamedInputs) -> None:
        _, along = jax.linearize(lambda one: loss.run(inputs, one), at)
        inner.append(jax.make_jaxpr(along)(at))

    jax.eval_shape(linear, loss.specs, loss.wanted)
    (closed,) = inner
    jaxpr, _ = remove_dead(closed.jaxpr, [True])
    for around, eqn in visit_equations(jaxpr):
        if eqn.primitive.name == "while":
            line, user_line, _ = locate_equation((*around, eqn))
            place = user_line or line
            return place.short if place else ""
    return None
