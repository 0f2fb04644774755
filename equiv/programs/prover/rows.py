"""Which rows of an array a gather reads, and a scatter adds to: known places, positions, one index that is looked up.

Known places are slices, and an index that counts along an axis of the result goes along with it, as the batch of
`z[arange(b), y]` does. With one more index the lookup is a sum with a one-hot mask (`one_hot.py`), and its derivative a
product with that mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.core import ShapedArray

from equiv.core.grades import IN_RANGE
from equiv.programs.jaxpr import open_jaxpr
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import REORDERED_SUMS
from equiv.programs.prover.lookups import plain_index
from equiv.programs.prover.moves import take
from equiv.programs.prover.one_hot import NEEDED, is_within, look_up, number_positions
from equiv.programs.prover.pieces import Pieces
from equiv.programs.prover.sums import number_contraction
from equiv.programs.prover.terms import TermView, constant_view, is_infinite, transpose_term

NumberMask = Callable[[list[TermView], tuple[int, ...]], TermView]
"""Numbers `one == other` to a shape."""


@dataclass(frozen=True)
class Rows:
    """Which rows of an operand an array of rows is: the result of a gather, or the updates of a scatter.

    Attributes:
        along: axis of the operand to the axis of the array that goes along with it.
        fixed: axis of the operand to the one place that is read.
        batch: for every axis of the index the axis of the array.
        index: axis of the operand to the index that is looked up; one at most.
    """

    along: dict[int, int]
    fixed: dict[int, int]
    batch: tuple[int, ...]
    index: tuple[tuple[int, TermView], ...]


def read_rows(
    algebra: Algebra, eqn: Any, operand: TermView, index: TermView, shape: Sequence[int]
) -> tuple[Rows, TermView] | None:
    """Read which rows a gather or scatter is of; and the operand without what no place reaches; None where not known.

    Args:
        algebra: the known positions and ranges.
        eqn: the equation.
        operand: what is read, or added to.
        index: the indices.
        shape: of the rows.
    """
    params, batch_shape = eqn.params, index.shape[:-1]
    if np.prod(batch_shape) != 1 and (params.get("indices_are_sorted") or params.get("unique_indices")):
        return None  # what a program says of its indices may be wrong
    numbers = params["dimension_numbers"]
    if eqn.primitive.name == "gather":
        window, gone, starts = numbers.offset_dims, numbers.collapsed_slice_dims, numbers.start_index_map
        tied = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    else:
        window, gone = numbers.update_window_dims, numbers.inserted_window_dims
        starts = numbers.scatter_dims_to_operand_dims
        tied = zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    batch = tuple(axis for axis in range(len(shape)) if axis not in window)
    along = {axis: batch[place] for axis, place in tied}
    inside = [axis for axis in range(len(operand.shape)) if axis not in gone and axis not in along]
    # Windows have to be whole, and begin at the first element.
    if any(shape[there] != operand.shape[axis] for axis, there in zip(inside, window, strict=True)):
        return None
    if any(axis in starts for axis in inside) or any(axis not in starts for axis in gone):
        return None
    along |= dict(zip(inside, window, strict=True))
    fixed: dict[int, int] = {}
    left: list[tuple[int, TermView]] = []
    for place, axis in enumerate(starts):
        one = plain_index(algebra, take(algebra.pieces, index, len(batch_shape), place))
        if one.constant is not None and 0 <= int(one.constant) < operand.shape[axis]:
            fixed[axis] = int(one.constant)
            continue
        counted = _counted_axis(algebra, one)
        if counted is None or batch[counted] in along.values() or batch_shape[counted] > operand.shape[axis]:
            left.append((axis, one))
            continue
        if eqn.primitive.name != "gather" and batch_shape[counted] != operand.shape[axis]:
            return None
        operand = algebra.pieces.slice(operand, axis, 0, batch_shape[counted])
        along[axis] = batch[counted]
    return (Rows(along, fixed, batch, tuple(left)), operand) if len(left) < 2 else None


def _counted_axis(algebra: Algebra, index: TermView) -> int | None:
    """The axis along which an index counts from 0 and changes with nothing else; None where it does not."""
    size = algebra.positions.get(index.term)
    places = [place for place, axis in enumerate(index.axes) if axis is not None]
    return places[0] if size is not None and len(places) == 1 and index.axes[places[0]] == 0 else None


def number_gather(algebra: Algebra, eqn: Any, ins: Sequence[TermView], mask: NumberMask) -> TermView | None:
    """Number a gather of known rows, or under rewrites of one index; None where no rule fits."""
    shape = tuple(eqn.outvars[0].aval.shape)
    known = read_rows(algebra, eqn, ins[0], ins[1], shape)
    if known is None or 0 in (*shape, *ins[0].shape):
        return None
    rows, operand = known
    operand = _at_fixed(algebra.pieces, rows, operand)
    if not rows.index:
        return _seen_along(operand, {there: axis for axis, there in rows.along.items()}, shape)
    ((axis, index),) = rows.index
    size = operand.shape[axis]
    if not algebra.rules >= NEEDED or "float" not in operand.dtype or not _may_look_up(algebra, index, size):
        return None
    whole = (*shape, size)
    both = _one_hot(algebra, index, rows.batch, len(shape), whole, mask)
    wide = _seen_along(operand, {there: one for one, there in rows.along.items()} | {len(shape): axis}, whole)
    return algebra.record(look_up(algebra, both, wide, len(shape)), *NEEDED)


def number_scatter_add(algebra: Algebra, eqn: Any, ins: Sequence[TermView], mask: NumberMask) -> TermView | None:
    """Number `operand.at[index].add(updates)`, the derivative of a gather; None where no rule fits."""
    if not _adds(eqn.params["update_jaxpr"]):
        return None
    operand, index, updates = ins
    known = read_rows(algebra, eqn, operand, index, updates.shape)
    if known is None or REORDERED_SUMS not in algebra.rules or "float" not in operand.dtype:
        return None
    if 0 in (*updates.shape, *operand.shape) or is_infinite(operand) or is_infinite(updates):
        return None
    rows, _ = known
    shape = tuple(1 if axis in rows.fixed else size for axis, size in enumerate(operand.shape))
    extra = [axis for axis in rows.batch if axis not in rows.along.values() and updates.shape[axis] != 1]
    needed = {REORDERED_SUMS}
    if not rows.index:
        made = None if extra else _seen_along(updates, rows.along, shape)
    else:
        ((axis, one),) = rows.index
        if not algebra.rules >= NEEDED or not _may_look_up(algebra, one, shape[axis]):
            return None
        needed |= NEEDED
        made = _sum_of_rows(algebra, rows, updates, shape, extra, mask)
    if made is None:
        return None
    for axis, place in rows.fixed.items():
        made = _between_zeros(algebra.pieces, made, axis, place, operand.shape[axis])
    total = algebra.sum(0.0, [(operand, 1.0), (made, 1.0)], operand.shape, operand.dtype)
    return algebra.record(total, *needed)


def _adds(body: Any) -> bool:
    """Whether a `scatter-add` adds an update to an element: what is computed is its body, whatever its name is."""
    jaxpr, _ = open_jaxpr(body)
    return [eqn.primitive.name for eqn in jaxpr.eqns] == ["add"] and (
        jaxpr.eqns[0].invars == jaxpr.invars and jaxpr.eqns[0].outvars == jaxpr.outvars
    )


def _sum_of_rows(
    algebra: Algebra,
    rows: Rows,
    updates: TermView,
    shape: tuple[int, ...],
    extra: Sequence[int],
    mask: NumberMask,
) -> TermView | None:
    """Updates, each in the row of its index: a product with the mask, summed over the axes that no row has."""
    ((axis, index),) = rows.index
    rank, whole = len(shape), (*shape, *(updates.shape[one] for one in extra))
    places = {there: one for one, there in rows.along.items()} | {one: rank + n for n, one in enumerate(extra)}
    batch = [places.get(one, -1) for one in rows.batch]
    both = _one_hot(algebra, index, batch, axis, whole, mask)
    one = algebra.product(1.0, [(both, 1.0)], whole, updates.dtype)
    other = _seen_along(updates, {there: place for place, there in places.items()}, whole)
    if not extra:
        return algebra.product(1.0, [(one, 1.0), (other, 1.0)], shape, updates.dtype)
    # As one contraction: an axis is shared, or only the mask's or only the updates'.
    tied = [place for place in rows.along if rows.along[place] in rows.batch]
    free = [place for place in range(rank) if place not in tied and place != axis]
    sums = range(rank, len(whole))
    left, right = _keep(one, [*tied, axis, *sums]), _keep(other, [*tied, *free, *sums])
    first, second = len(tied) + 1, len(tied) + len(free)
    summed = range(first, first + len(sums)), range(second, second + len(sums))
    numbers = (tuple(map(tuple, summed)), (tuple(range(len(tied))),) * 2)
    made = [*tied, axis, *free]
    params = {
        "dimension_numbers": numbers, "precision": None, "preferred_element_type": np.dtype(updates.dtype),
        "out_sharding": None,
    }  # fmt: skip
    aval = ShapedArray(tuple(whole[place] for place in made), updates.dtype)
    result = number_contraction(algebra, "dot_general", params, [left, right], aval)
    return None if result is None else transpose_term(result, [made.index(place) for place in range(rank)])


def _may_look_up(algebra: Algebra, index: TermView, size: int) -> bool:
    """Whether an index is in range, known or by the rewrite, which is recorded; and its dtype has all positions."""
    if size < 2 or number_positions(algebra, size, index.dtype) is None:
        return False
    known = is_within(algebra, index, size)
    if not known and IN_RANGE in algebra.rules:
        algebra.applied.add(IN_RANGE)
    return known or IN_RANGE in algebra.rules


def _one_hot(
    algebra: Algebra, index: TermView, batch: Sequence[int], axis: int, whole: tuple[int, ...], mask: NumberMask
) -> TermView:
    """The mask that is true where the positions along an axis are the index, whose axes stand at these places."""
    positions = number_positions(algebra, whole[axis], index.dtype)
    assert positions is not None
    counted = _seen_along(positions, {axis: 0}, whole)
    return mask(
        [_seen_along(index, {there: one for one, there in enumerate(batch) if there >= 0}, whole), counted], whole
    )


def _seen_along(value: TermView, places: dict[int, int], shape: tuple[int, ...]) -> TermView:
    """A value whose axes stand at these places of a shape; elsewhere it is repeated."""
    axes = tuple(value.axes[places[place]] if place in places else None for place in range(len(shape)))
    return TermView(value.term, axes, shape, value.dtype, value.constant)


def _at_fixed(pieces: Pieces, rows: Rows, operand: TermView) -> TermView:
    for axis, place in rows.fixed.items():
        operand = pieces.slice(operand, axis, place, place + 1)
    return operand


def _between_zeros(pieces: Pieces, value: TermView, axis: int, place: int, size: int) -> TermView:
    """One element along an axis, and zeros before and after it."""
    zero = np.zeros((), value.dtype)
    ends = [(*value.shape[:axis], count, *value.shape[axis + 1 :]) for count in (place, size - 1 - place)]
    before, after = (constant_view(zero, one) for one in ends)
    return pieces.concatenate([before, value, after], axis)


def _keep(value: TermView, places: Sequence[int]) -> TermView:
    axes = tuple(value.axes[place] for place in places)
    return TermView(value.term, axes, tuple(value.shape[place] for place in places), value.dtype, value.constant)
