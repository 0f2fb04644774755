"""What every way to write an equation wrongly is made of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax import lax

from equiv.programs.mutation.equations import Spot
from equiv.programs.mutation.splice import Edit, computed

OnEquation = Callable[[Spot], Iterator[Edit]]
"""What a fault does at a spot: no edit where it does not apply, one, or several."""


def floating(spot: Spot) -> bool:
    """Whether the equation gives floats."""
    return "float" in str(spot.eqn.outvars[0].aval.dtype)


def fitted(array: Any, aval: Any) -> Any:
    """A scalar operand as the array it stands for."""
    return lax.broadcast(array, aval.shape) if not array.shape and aval.shape else array


def bind(spot: Spot, operands: Sequence[Any], **changed: Any) -> Sequence[Any]:
    """The spot's own operation, on other operands or with other parameters."""
    primitive = spot.eqn.primitive
    outs = primitive.bind(*operands, **primitive.get_bind_params({**spot.eqn.params, **changed}))
    return outs if primitive.multiple_results else [outs]


def again(spot: Spot, compute: Callable[..., Any]) -> Edit:
    """In place of the equation, a function of its operands, each with the shape of the result."""
    aval = spot.eqn.outvars[0].aval
    return computed(spot.eqn.invars, lambda *ins: [compute(*(fitted(array, aval) for array in ins))])


def kept(spot: Spot, index: int) -> Edit:
    """In place of the equation, one of its operands."""
    aval = spot.eqn.outvars[0].aval
    return computed([spot.eqn.invars[index]], lambda array: [fitted(array, aval)])
