"""Equations that move elements: slices, concatenations, padding, updates of a part; as terms of `pieces.py`.

An elementwise operation on concatenations that are cut at the same places is one on their pieces, so that the sum of
padded derivatives, or an optimizer's update of stacked leaves, is one for every piece.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from equiv.programs.prover.digits import reshape_digits
from equiv.programs.prover.pieces import MANY, Pieces
from equiv.programs.prover.terms import TermView, broadcast_term

LARGEST_INDEX = 2**31 - 1
"""The largest index in every dtype of indices."""

Number = Callable[[list[TermView], tuple[int, ...]], TermView | None]
"""Numbers an operation on operands to a shape; None where no rule fits."""


def number_move(pieces: Pieces, eqn: Any, ins: Sequence[TermView]) -> list[TermView] | None:
    """Number an equation that moves elements to known places; None where it is none, or the places are not known."""
    rule = MOVE_RULES.get(eqn.primitive.name)
    if rule is None or any(0 in var.aval.shape for var in eqn.outvars):
        return None
    return rule(pieces, eqn.params, ins)


def distribute(pieces: Pieces, ins: Sequence[TermView], shape: tuple[int, ...], number: Number) -> TermView | None:
    """Number an elementwise operation piece by piece; None unless all operands are concatenations along one axis.

    Operands without this axis, or that repeat their elements along it, are the same for every piece.
    """
    if not pieces.joined:
        return None
    for axis in range(len(shape)):
        cuts = [pieces.cuts(one, axis) for one in ins if one.shape and one.axes[axis] is not None]
        known = {place for one in cuts if one is not None for place in one}
        if not cuts or None in cuts or len(known) > MANY:
            continue
        parts = []
        for start, stop in pairwise(sorted(known)):
            operands = [pieces.slice(one, axis, start, stop) if one.shape else one for one in ins]
            part = number(operands, (*shape[:axis], stop - start, *shape[axis + 1 :]))
            if part is None:
                return None
            parts.append(part)
        return pieces.concatenate(parts, axis)
    return None


def cut_along(pieces: Pieces, ins: Sequence[TermView], axes: Sequence[int]) -> list[list[TermView]] | None:
    """Cut operands along one axis of each where some of them is a concatenation; None where none is."""
    known = {place for one, axis in zip(ins, axes, strict=True) for place in pieces.cuts(one, axis) or ()}
    if not known or len(known) > MANY:
        return None
    return [
        [pieces.slice(one, axis, start, stop) for one, axis in zip(ins, axes, strict=True)]
        for start, stop in pairwise(sorted(known))
    ]


def _slice(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    value, starts, stops = ins[0], params["start_indices"], params["limit_indices"]
    for axis, step in enumerate(params["strides"] or (1,) * len(starts)):
        start, stop = int(starts[axis]), int(stops[axis])
        found = pieces.slice(value, axis, start, stop) if step == 1 else _every(pieces, value, axis, start, stop, step)
        if found is None:
            return None
        value = found
    return [value]


def _every(pieces: Pieces, value: TermView, axis: int, start: int, stop: int, step: int) -> TermView | None:
    """Every `step`-th element from `start` on: a column of the axis cut into rows of `step` elements."""
    rows = value.shape[axis] // step
    count, (first, column) = -(-(stop - start) // step), divmod(start, step)
    # A step beyond the last index leaves the first one.
    if count <= 1:
        return pieces.slice(value, axis, start, start + count)
    # What is left over at the end is in no row; the last element that is taken has to be in one.
    cut = cut_axis(pieces.slice(value, axis, 0, rows * step), axis, step) if first + count <= rows else None
    return None if cut is None else take(pieces, pieces.slice(cut, axis, first, first + count), axis + 1, column)


def cut_axis(value: TermView, axis: int, step: int) -> TermView | None:
    """An axis cut into rows of `step` elements, which are an axis more; None where no view does that."""
    rows = value.shape[axis] // step
    return reshape_digits(value, (*value.shape[:axis], rows, step, *value.shape[axis + 1 :]))


def _split(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    found, start = [], 0
    for size in params["sizes"]:
        found.append(pieces.slice(ins[0], params["axis"], start, start + int(size)))
        start += int(size)
    return found


def _concatenate(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    return [pieces.concatenate(ins, params["dimension"])]


def _stack(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    return [pieces.concatenate([add_axis(one, params["axis"]) for one in ins], params["axis"])]


def _unstack(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    axis = params["axis"]
    return [take(pieces, ins[0], axis, index) for index in range(ins[0].shape[axis])]


def add_axis(value: TermView, axis: int) -> TermView:
    """A value with an axis of size one more."""
    axes, shape = list(value.axes), list(value.shape)
    axes.insert(axis, None)
    shape.insert(axis, 1)
    return TermView(value.term, tuple(axes), tuple(shape), value.dtype, value.constant)


def take(pieces: Pieces, value: TermView, axis: int, index: int) -> TermView:
    """What stands at an index of an axis, without that axis."""
    one = pieces.slice(value, axis, index, index + 1)
    axes, shape = ((*items[:axis], *items[axis + 1 :]) for items in (one.axes, one.shape))
    return TermView(one.term, axes, shape, one.dtype, one.constant)


def _pad(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    value, filler = ins
    for axis, sizes in enumerate(params["padding_config"]):
        low, high, inner = map(int, sizes)
        if inner:
            spread = _spread(pieces, value, filler, axis, (low, high, inner + 1))
            if spread is None:
                return None
            value = spread
            continue
        # A negative number of elements is cut off.
        start, stop = max(-low, 0), value.shape[axis] - max(-high, 0)
        if start >= stop:
            return None
        value = pieces.slice(value, axis, start, stop)
        ends = [(*value.shape[:axis], max(size, 0), *value.shape[axis + 1 :]) for size in (low, high)]
        before, after = (broadcast_term(filler, shape, ()) for shape in ends)
        value = pieces.concatenate([before, value, after], axis)
    return [value]


def _spread(
    pieces: Pieces, value: TermView, filler: TermView, axis: int, sizes: tuple[int, int, int]
) -> TermView | None:
    """A value with fillers between its elements, `step` from one to the next: a column among theirs.

    None where the result is not of whole rows of `step` elements.
    """
    low, high, step = sizes
    count = value.shape[axis]
    size = low + (count - 1) * step + 1 + high
    if low < 0 or high < 0 or size % step:
        return None
    above, column = divmod(low, step)
    shape = [*value.shape[:axis], size // step, *value.shape[axis + 1 :]]
    ends = [(*value.shape[:axis], rows, *value.shape[axis + 1 :]) for rows in (above, size // step - above - count)]
    before, after = (broadcast_term(filler, one, ()) for one in ends)
    full = add_axis(pieces.concatenate([before, value, after], axis), axis + 1)
    others = [
        broadcast_term(filler, (*shape[: axis + 1], columns, *shape[axis + 1 :]), ())
        for columns in (column, step - 1 - column)
    ]
    rows = pieces.concatenate([others[0], full, others[1]], axis + 1)
    return reshape_digits(rows, (*value.shape[:axis], size, *value.shape[axis + 1 :]))


def _known_starts(whole: TermView, sizes: Sequence[int], starts: Sequence[TermView]) -> list[int] | None:
    """The first indices of a dynamic slice, moved into the array as jax does; None where one is not known."""
    # An unsigned one beyond those is the largest place, but XLA (jax 0.10.2) takes a constant for a negative one.
    if any(one.constant is None or one.constant > LARGEST_INDEX for one in starts):
        return None
    limits = [size - taken for size, taken in zip(whole.shape, sizes, strict=True)]
    return [min(max(int(one.constant), 0), limit) for one, limit in zip(starts, limits, strict=True)]


def _dynamic_slice(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    value, sizes = ins[0], params["slice_sizes"]
    starts = _known_starts(value, sizes, ins[1:])
    if starts is None:
        return None
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        value = pieces.slice(value, axis, start, start + size)
    return [value]


def _dynamic_update_slice(pieces: Pieces, params: dict[str, Any], ins: Sequence[TermView]) -> list[TermView] | None:
    whole, update = ins[:2]
    starts = _known_starts(whole, update.shape, ins[2:])
    return None if starts is None or 0 in update.shape else [_put(pieces, whole, update, starts, 0)]


def _put(pieces: Pieces, whole: TermView, update: TermView, starts: Sequence[int], axis: int) -> TermView:
    """Put an update in place of a part of a value, from this axis on; before it they have one size."""
    if axis == len(starts):
        return update
    first, last = starts[axis], starts[axis] + update.shape[axis]
    middle = _put(pieces, pieces.slice(whole, axis, first, last), update, starts, axis + 1)
    if first == 0 and last == whole.shape[axis]:
        return middle
    ends = pieces.slice(whole, axis, 0, first), pieces.slice(whole, axis, last, whole.shape[axis])
    return pieces.concatenate([ends[0], middle, ends[1]], axis)


Rule = Callable[[Pieces, dict[str, Any], Sequence[TermView]], list[TermView] | None]

MOVE_RULES: dict[str, Rule] = {
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
}
"""Primitive to its rule."""
