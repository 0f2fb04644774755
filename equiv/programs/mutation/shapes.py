"""Faults in axes, orders and positions: contractions, reductions, indexing."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from jax import lax
from jax import numpy as jnp

from equiv.programs.mutation.edits import EquationFault, has_float_result, rebind_equation
from equiv.programs.mutation.equations import EquationContext
from equiv.programs.mutation.splice import Edit, replace_equation, replace_operand


def change_contraction(change: Callable[[Any, int, int], Any]) -> EquationFault:
    """Change one operand of a `dot_general`; `change` takes the operand, its contracted axis and its rank."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name == "dot_general":
            summed, _ = context.eqn.params["dimension_numbers"]
            for index in (1, 0):
                atom, axes = context.eqn.invars[index], summed[index]
                if len(axes) == 1:
                    yield replace_operand(index, [atom], lambda array, axis=axes[0]: [change(array, axis, array.ndim)])

    return edits


def change_summed_axis(context: EquationContext) -> Iterator[Edit]:
    """Contract or sum over another axis of the same size."""
    ins = context.eqn.invars
    if context.name == "dot_general":
        (left, right), batch = context.eqn.params["dimension_numbers"]
        for axis in range(len(ins[0].aval.shape)):
            if len(left) == 1 and axis not in (*left, *batch[0]):
                numbers = (((axis,), right), batch)
                yield replace_equation(
                    ins, lambda *arrays, to=numbers: rebind_equation(context, arrays, dimension_numbers=to)
                )
    if context.name.startswith("reduce_") and len(context.eqn.params.get("axes", ())) == 1:
        for axis in range(len(ins[0].aval.shape)):
            if axis not in context.eqn.params["axes"]:
                yield replace_equation(ins, lambda *arrays, to=(axis,): rebind_equation(context, arrays, axes=to))


def replace_reduction(names: Collection[str], compute: Callable[[Any, Sequence[int]], Any]) -> EquationFault:
    """Replace a reduction by another over the same axes."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and has_float_result(context):
            yield replace_equation(context.eqn.invars, lambda array: [compute(array, context.eqn.params["axes"])])

    return edits


def change_operand(names: Collection[str], index: int, change: Callable[[Any], Any]) -> EquationFault:
    """Change one operand."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and index < len(context.eqn.invars):
            yield replace_operand(index, [context.eqn.invars[index]], lambda array: [change(array)])

    return edits


def reverse_operands(names: Collection[str]) -> EquationFault:
    """Reverse the order of the operands."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and len(context.eqn.invars) > 1:
            yield replace_equation(context.eqn.invars, lambda *arrays: rebind_equation(context, arrays[::-1]))

    return edits


def shift_slice(context: EquationContext) -> Iterator[Edit]:
    """Shift a slice by one."""
    if context.name == "slice":
        start, limit = (tuple(context.eqn.params[key]) for key in ("start_indices", "limit_indices"))
        for axis, size in enumerate(context.eqn.invars[0].aval.shape):
            if limit[axis] < size:
                moved = {
                    "start_indices": tuple(at + (place == axis) for place, at in enumerate(start)),
                    "limit_indices": tuple(at + (place == axis) for place, at in enumerate(limit)),
                }
                yield replace_equation(
                    context.eqn.invars, lambda array, to=moved: rebind_equation(context, [array], **to)
                )


def shift_iota(context: EquationContext) -> Iterator[Edit]:
    """Count positions from one."""
    if context.name == "iota":
        yield replace_equation(
            [], lambda: [rebind_equation(context, [])[0] + lax.full((), 1, context.eqn.outvars[0].aval.dtype)]
        )


def repeat_first_row(array: Any) -> Any:
    """Replace every row by the first."""
    return jnp.broadcast_to(array[:1], array.shape)


def roll_parts(array: Any, axis: int, part: int) -> Any:
    """Roll an array along an axis by one of `part` equal parts."""
    size = array.shape[axis]
    if size % part:
        raise ValueError(f"{size} does not split into {part}")
    one = lax.slice_in_dim(array, 0, size // part, axis=axis)
    return lax.concatenate([lax.slice_in_dim(array, size // part, size, axis=axis), one], axis)
