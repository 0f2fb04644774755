"""Values put together along an axis: neighbouring slices of one array as a slice of it, any others as a new term."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from equiv.programs.content import digest, encode
from equiv.programs.prover.digits import (
    Digit,
    axis_digits,
    cut_at_same_places,
    has_digits,
    join_pieces,
    opaque_view,
    split_operand,
    view_joined,
)
from equiv.programs.prover.joined import whole_view
from equiv.programs.prover.parts import Concatenation, Region
from equiv.programs.prover.terms import TermView

if TYPE_CHECKING:
    from equiv.programs.prover.pieces import Pieces


def merge_neighbours(pieces: Pieces, one: TermView, other: TermView, axis: int) -> TermView | None:
    """Two neighbours as one value: equal elements, or neighbouring slices of one array; else None."""
    size = one.shape[axis] + other.shape[axis]
    shape = (*one.shape[:axis], size, *one.shape[axis + 1 :])
    if one.term == other.term and one.axes == other.axes and one.axes[axis] is None:
        return TermView(one.term, one.axes, shape, one.dtype, one.constant)
    ours, theirs = _as_region(pieces, one), _as_region(pieces, other)
    if ours is None or theirs is None or ours.whole.term != theirs.whole.term:
        return None
    pairs = list(zip(ours.bounds, theirs.bounds, strict=True))
    different = [index for index, (left, right) in enumerate(pairs) if left != right]
    if len(different) != 1 or pairs[different[0]][0][1] != pairs[different[0]][1][0]:
        return None
    (along,) = different
    # On this axis each of the two has the cut axis, or nothing where it is one element; elsewhere they are equal.
    views = [
        [None if place is None else region.axes[place] for place in value.axes]
        for value, region in ((one, ours), (other, theirs))
    ]
    for view, value, (start, stop) in zip(views, (one, other), pairs[along], strict=True):
        # A slice that is repeated has nothing there either, and is longer.
        if value.shape[axis] != stop - start or view[axis] != (along if stop - start != 1 else None):
            return None
        view[axis] = along
    if views[0] != views[1] or views[0].count(along) != 1:
        return None
    bounds = pairs[along][0][0], pairs[along][1][1]
    part = ours.whole
    for index, (left, _) in enumerate(pairs):
        part = pieces.slice(part, index, *(bounds if index == along else left))
    # All columns of a split axis are that axis again.
    return whole_view(pieces.seen_through(TermView("", tuple(views[0]), shape, one.dtype), part), pieces.splits)


def join_values(pieces: Pieces, values: Sequence[TermView], axis: int) -> TermView:
    """A new term that puts values together, named as if none of its other axes had been reshaped."""
    values = [opaque_view(one) if isinstance(one.axes[axis], tuple) else one for one in values]
    others = [index for index in range(len(values[0].shape)) if index != axis]
    groups = [cut_at_same_places(values, [index] * len(values), "") for index in others]
    if None in groups:
        values = [opaque_view(one) for one in values]
        groups = [cut_at_same_places(values, [index] * len(values), "") for index in others]
    found = [group or [] for group in groups]
    joined = join_pieces(list(chain(*found)))
    along = [(axis_digits(one, axis) or [Digit(None, 1, 1)])[0] for one in values]
    parts = [
        split_operand(
            one, [along[side], *(piece.digits[side] or Digit(None, 1, 1) for piece in joined.pieces)], pieces.splits
        )
        for side, one in enumerate(values)
    ]
    result = _join_parts(pieces, parts)
    places = iter(joined.places)
    seen = [
        [(place + 1, divisor, piece.size) for piece, (place, divisor) in zip(group, places, strict=False)]
        for group in found
    ]
    size = sum(one.shape[axis] for one in values)
    shape = (*values[0].shape[:axis], size, *values[0].shape[axis + 1 :])
    seen.insert(axis, [(0, 1, size)])
    return view_joined(result, seen, shape, pieces.splits)


def _join_parts(pieces: Pieces, parts: Sequence[TermView]) -> TermView:
    """Put values without digits together along their first axis."""
    rank = len(parts[0].shape)
    real = [index for index in range(1, rank) if any(one.axes[index] is not None for one in parts)]

    # As in `apply_elementwise`: in which order the axes are written does not count.
    def signature(index: int) -> list[bytes]:
        return [encode(one.term, one.axes[index]) for one in parts]

    order = [0, *sorted(real, key=signature)]
    own = tuple(
        TermView(
            one.term, tuple(one.axes[i] for i in order), tuple(one.shape[i] for i in order), one.dtype, one.constant
        )
        for one in parts
    )
    term = digest("concatenate", [(one.term, one.axes, one.shape, one.dtype) for one in own])
    if term not in pieces.joined:
        pieces.joined[term] = Concatenation(own)
        ways = [[pieces.distance(one, index) for one in own] for index in range(1, len(order))]
        known = [[one for one in row if one is not None] for row in ways]
        pieces.near[term] = (0, *(max(row) if row else None for row in known))
    place = {index: number for number, index in enumerate(order)}
    size = sum(one.shape[0] for one in parts)
    return TermView(term, tuple(place.get(i) for i in range(rank)), (size, *parts[0].shape[1:]), parts[0].dtype)


def _as_region(pieces: Pieces, value: TermView) -> Region | None:
    return None if has_digits(value) else pieces.regions.get(value.term)
