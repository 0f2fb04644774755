"""Building blocks of faults in equations."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax import lax

from equiv.compat import bind_equation
from equiv.programs.mutation.equations import EquationContext
from equiv.programs.mutation.splice import Edit, replace_equation

EquationFault = Callable[[EquationContext], Iterator[Edit]]
"""The edits of a fault at one equation: none where it does not apply, one, or several."""


def has_float_result(context: EquationContext) -> bool:
    """Whether the equation's result is a float."""
    return "float" in str(context.eqn.outvars[0].aval.dtype)


def broadcast_to_result(array: Any, aval: Any) -> Any:
    """Broadcast a scalar operand to the shape of the result."""
    return lax.broadcast(array, aval.shape) if not array.shape and aval.shape else array


def rebind_equation(context: EquationContext, operands: Sequence[Any], **changed: Any) -> Sequence[Any]:
    """Bind the equation's own primitive to other operands or with other parameters."""
    return bind_equation(context.eqn, operands, {**context.eqn.params, **changed})


def replace_function(context: EquationContext, compute: Callable[..., Any]) -> Edit:
    """Replace the equation by a function of its operands, each broadcast to the shape of the result."""
    aval = context.eqn.outvars[0].aval
    return replace_equation(
        context.eqn.invars, lambda *ins: [compute(*(broadcast_to_result(array, aval) for array in ins))]
    )


def keep_operand(context: EquationContext, index: int) -> Edit:
    """Replace the equation by one of its operands."""
    aval = context.eqn.outvars[0].aval
    return replace_equation([context.eqn.invars[index]], lambda array: [broadcast_to_result(array, aval)])
