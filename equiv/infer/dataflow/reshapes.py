"""Rules for reshapes and transposes of blocked values: which cuts, and which leaf axes, an axis keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from equiv.infer.dataflow.blocks import (
    NOWHERE,
    BlockedValue,
    Cuts,
    Origins,
    WalkState,
    make_cells,
    map_part_views,
    map_views,
    merge_cuts,
    part_shape,
)
from equiv.infer.dataflow.leaf_uses import ValuePart
from equiv.infer.dataflow.strided_views import Shape, reshape_view, transpose_view


def transpose_value(value: BlockedValue, permutation: Sequence[int]) -> BlockedValue:
    """Permute the axes of a value."""
    order = tuple(map(int, permutation))
    cells = map_views(value.cells, lambda view: transpose_view(view, order)).transpose(order)
    shape, cuts = tuple(value.shape[axis] for axis in order), tuple(value.cuts[axis] for axis in order)
    periods = tuple(value.period(axis) for axis in order)
    return BlockedValue(shape, cells, cuts, tuple(value.origins[axis] for axis in order), periods)


@dataclass(frozen=True)
class _Span:
    """An axis within a group of axes that are reshaped together, in elements of the group.

    Attributes:
        axis: of the value.
        inner: how many elements one step along it is.
        outer: how many elements it is as a whole.
        slowest: whether it is the slowest of its group.
    """

    axis: int
    inner: int
    outer: int
    slowest: bool


def reshape_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """Reshape; cuts survive on the slowest axis of a group of axes, and where an axis is split in the same way."""
    value, shape, order = ins[0], shapes[0], eqn.params.get("dimensions")
    if order is not None and eqn.primitive.name == "reshape":  # `lax.reshape` can take axes in another order first
        value = transpose_value(value, order)
    cuts: list[Cuts] = [()] * len(shape)
    periods, origins, lost = [0] * len(shape), [NOWHERE] * len(shape), list[int]()
    counts = [1] * len(shape)
    for before, after in reshape_groups(value.shape, shape):
        news = _spans(shape, after)
        for old in _spans(value.shape, before):
            for new in news:
                origins[new.axis] |= _moved_origins(value.origins[old.axis], old, new)
            if not value.cuts[old.axis]:
                continue
            found = next((way for new in news if (way := _moved_cuts(value, old, new)) is not None), None)
            if found is None:
                lost.append(old.axis)
                continue
            axis, cuts[found[0]], periods[found[0]] = found
            counts[axis] = len(cuts[axis]) + 1
    cells = merge_cuts(state, value, lost).cells.reshape(counts)

    def make(index: tuple[int, ...]) -> ValuePart:
        sizes = part_shape(shape, tuple(cuts), tuple(periods), index)
        return map_part_views(cells[index], lambda view: reshape_view(view, sizes))

    return [BlockedValue(shape, make_cells(shape, tuple(cuts), make), tuple(cuts), tuple(origins), tuple(periods))]


def _spans(shape: Shape, axes: Sequence[int]) -> list[_Span]:
    found: list[_Span] = []
    for place, axis in enumerate(axes):
        inner = prod(shape[later] for later in axes[place + 1 :])
        if shape[axis] > 1:
            found.append(_Span(axis, inner, inner * shape[axis], not found))
    return found


def _moved_cuts(value: BlockedValue, old: _Span, new: _Span) -> tuple[int, Cuts, int] | None:
    """The axis, its cuts and their period after a reshape, of an axis that is cut; None where it is not this one."""
    # A cut of the slowest axis stays one range of a merged axis. One of a faster axis would recur in every row.
    period = (value.period(old.axis) or value.shape[old.axis]) * old.inner
    places = [Fraction(cut * old.inner, new.inner) for cut in value.cuts[old.axis]]
    if not new.inner < period <= new.outer or any(place.denominator > 1 for place in places):
        return None
    if period == new.outer and (new.slowest or value.period(old.axis)):
        return new.axis, tuple(map(int, places)), 0
    if value.period(old.axis) and old.slowest and period % new.inner == 0 and new.outer % period == 0:
        return new.axis, tuple(map(int, places)), period // new.inner
    return None


def _moved_origins(origins: Origins, old: _Span, new: _Span) -> Origins:
    step = Fraction(new.inner, old.inner)
    if old.slowest and new.slowest:
        return frozenset((leaf, at, unit * step, start, period) for leaf, at, unit, start, period in origins)
    # A faster axis recurs for each index of a slower one: the columns of each head.
    inside = old.inner <= new.inner and new.outer <= old.outer and new.inner % old.inner == 0
    if not inside:
        return NOWHERE
    recurs = new.outer // old.inner
    return frozenset(
        (leaf, at, unit * step, start, int(unit * recurs))
        for leaf, at, unit, start, period in origins
        # Of a part of an axis the columns recur in that part only.
        if leaf >= 0 and not period and not start and (unit * recurs).denominator == 1
    )


def reshape_groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of consecutive axes of two shapes with equal numbers of elements."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before: list[int] = []
        after: list[int] = []
        while not (before and after) or prod(old[a] for a in before) != prod(new[a] for a in after):
            one, two = prod(old[axis] for axis in before), prod(new[axis] for axis in after)
            if i < len(old) and (one <= two or j >= len(new)):
                before.append(i)
                i += 1
            elif j < len(new):
                after.append(j)
                j += 1
            else:
                break
        found.append((before, after))
    return found
