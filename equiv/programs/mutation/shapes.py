"""Wrong axes, orders and positions: contractions, reductions, indexing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax import lax
from jax import numpy as jnp

from equiv.programs.mutation.edits import OnEquation, bind, floating
from equiv.programs.mutation.equations import Spot
from equiv.programs.mutation.splice import Edit, computed, fed


def contraction(change: Callable[[Any, int, int], Any]) -> OnEquation:
    """A product of matrices with one operand changed; `change` is told the summed axis and its number of axes."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name == "dot_general":
            summed, _ = spot.eqn.params["dimension_numbers"]
            for index in (1, 0):
                atom, axes = spot.eqn.invars[index], summed[index]
                if len(axes) == 1:
                    yield fed(index, [atom], lambda array, axis=axes[0]: [change(array, axis, array.ndim)])

    return on


def other_axis_summed(spot: Spot) -> Iterator[Edit]:
    """A product of matrices or a sum over another axis of the same size."""
    ins = spot.eqn.invars
    if spot.name == "dot_general":
        (left, right), batch = spot.eqn.params["dimension_numbers"]
        for axis in range(len(ins[0].aval.shape)):
            if len(left) == 1 and axis not in (*left, *batch[0]):
                numbers = (((axis,), right), batch)
                yield computed(ins, lambda *arrays, to=numbers: bind(spot, arrays, dimension_numbers=to))
    if spot.name.startswith("reduce_") and len(spot.eqn.params.get("axes", ())) == 1:
        for axis in range(len(ins[0].aval.shape)):
            if axis not in spot.eqn.params["axes"]:
                yield computed(ins, lambda *arrays, to=(axis,): bind(spot, arrays, axes=to))


def reduced(names: Sequence[str], compute: Callable[[Any, Sequence[int]], Any]) -> OnEquation:
    """Another reduction over the same axes."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and floating(spot):
            yield computed(spot.eqn.invars, lambda array: [compute(array, spot.eqn.params["axes"])])

    return on


def operand(names: Sequence[str], index: int, change: Callable[[Any], Any]) -> OnEquation:
    """One operand changed before it is used."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and index < len(spot.eqn.invars):
            yield fed(index, [spot.eqn.invars[index]], lambda array: [change(array)])

    return on


def order(names: Sequence[str]) -> OnEquation:
    """The operands in reverse order."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and len(spot.eqn.invars) > 1:
            yield computed(spot.eqn.invars, lambda *arrays: bind(spot, arrays[::-1]))

    return on


def sliced_late(spot: Spot) -> Iterator[Edit]:
    """A slice that begins and ends one later."""
    if spot.name == "slice":
        start, limit = (tuple(spot.eqn.params[key]) for key in ("start_indices", "limit_indices"))
        for axis, size in enumerate(spot.eqn.invars[0].aval.shape):
            if limit[axis] < size:
                moved = {
                    "start_indices": tuple(at + (place == axis) for place, at in enumerate(start)),
                    "limit_indices": tuple(at + (place == axis) for place, at in enumerate(limit)),
                }
                yield computed(spot.eqn.invars, lambda array, to=moved: bind(spot, [array], **to))


def counted(spot: Spot) -> Iterator[Edit]:
    """Positions that begin at one."""
    if spot.name == "iota":
        yield computed([], lambda: [bind(spot, [])[0] + lax.full((), 1, spot.eqn.outvars[0].aval.dtype)])


def first_for_all(array: Any) -> Any:
    """The first row in place of every row."""
    return jnp.broadcast_to(array[:1], array.shape)


def rolled(array: Any, axis: int, part: int) -> Any:
    """The array with its parts along an axis moved on by one; parts of equal size."""
    size = array.shape[axis]
    if size % part:
        raise ValueError(f"{size} does not split into {part}")
    one = lax.slice_in_dim(array, 0, size // part, axis=axis)
    return lax.concatenate([lax.slice_in_dim(array, size // part, size, axis=axis), one], axis)
