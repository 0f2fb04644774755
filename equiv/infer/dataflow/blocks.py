"""Values as grids of parts: cut where the program cuts them, with the leaf axes that their axes come from.

A packed leaf (concatenated gates; query, key and value in one kernel) is split into parts this way, and a program
that concatenates leaves and splits the result again yields the original leaves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from equiv.infer.dataflow.leaf_uses import LeafUses, ValuePart, merge_parts
from equiv.infer.dataflow.strided_views import Shape, StridedView, slice_recurring_view, slice_view

Cuts = tuple[int, ...]


@dataclass(frozen=True, order=True, slots=True)
class AxisCuts:
    """Where an axis of a leaf is cut.

    Attributes:
        places: the indices at which a part begins, but for the first.
        period: after how many indices they recur, as where query, key and value alternate head by head; 0: they do not.
    """

    places: Cuts = ()
    period: int = 0


# Fractions, because an axis that merges several axes of a leaf has many
# indices for one index of the leaf. A float would round the place of a cut.
Origin = tuple[int, int, Fraction, Fraction, int]
"""Leaf, its axis, the leaf indices per index of the value's axis, the leaf index at 0, and after how many leaf indices
the axis recurs: the columns of each head, where the heads are another axis; 0: it does not.

Batch entries have negative leaf numbers: -1, -2, and so on.
"""

Origins = frozenset[Origin]

NOWHERE: Origins = frozenset()


@dataclass(frozen=True, slots=True)
class BlockedValue:
    """A value as a grid of parts.

    Attributes:
        shape: shape of the value.
        cells: the parts, an object array with one axis per axis of the value.
        cuts: for every axis the indices where it is cut.
        origins: for every axis the leaf axes that it comes from.
        periods: for every axis after how many indices its cuts recur; 0: they do not; empty: those of no axis do.
    """

    shape: Shape
    cells: np.ndarray
    cuts: tuple[Cuts, ...]
    origins: tuple[Origins, ...]
    periods: tuple[int, ...] = ()

    def period(self, axis: int) -> int:
        """After how many indices the cuts of an axis recur; 0: they do not."""
        return self.periods[axis] if self.periods else 0

    @property
    def recurring_axes(self) -> tuple[int, ...]:
        """The axes whose cuts recur."""
        return tuple(axis for axis, period in enumerate(self.periods) if period)

    def part_sizes(self, axis: int) -> list[int]:
        """How many indices of an axis each part has."""
        return part_sizes(self.cuts[axis], self.shape[axis], self.period(axis))


@dataclass(frozen=True, slots=True)
class WalkedEquation:
    """A walked equation: its primitive, operands, results, and path in the program."""

    name: str
    ins: list[BlockedValue]
    outs: list[BlockedValue]
    path: tuple[Any, ...]


@dataclass(frozen=True)
class GroupCuts:
    """The groups of a convolution along one axis of a leaf.

    Attributes:
        places: the indices at which a group begins, but for the first.
        distance: 0 for its kernel, 1 for the first leaf that meets its result, and so on: up to one of them the other
            port may have a leaf for each group.
    """

    places: Cuts
    distance: int


@dataclass
class WalkState:
    """State of a walk over a program.

    Attributes:
        uses: uses of leaves and inputs.
        wanted_cuts: leaf and axis to the indices where the program cuts it.
        recurring_cuts: leaf and axis to cuts that recur: the period, and the length of what is cut, to the indices.
        loop_lengths: leaf to the length of the loop or `vmap` that slices it on its first axis.
        group_cuts: leaf and axis to the groups of a convolution along it.
        equations: every equation that is neither a call nor a loop.
    """

    uses: LeafUses = field(default_factory=LeafUses)
    wanted_cuts: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    recurring_cuts: dict[tuple[int, int], dict[tuple[int, int], set[int]]] = field(default_factory=dict)
    loop_lengths: dict[int, int] = field(default_factory=dict)
    group_cuts: dict[tuple[int, int], GroupCuts] = field(default_factory=dict)
    equations: list[WalkedEquation] = field(default_factory=list)

    def request_cuts(self, origins: Origins, places: Iterable[int]) -> None:
        """Record that the program cuts an axis at some indices."""
        for leaf, axis, at in leaf_places(origins, places):
            self.wanted_cuts.setdefault((leaf, axis), set()).add(at)

    def request_recurring_cuts(self, origins: Origins, places: Iterable[int], size: int) -> None:
        """Record that the program cuts an axis of a size at some indices, and the leaf's in every period."""
        for leaf, axis, unit, start, period in origins:
            within = {(start + place * unit) % period for place in places} - {0} if period and leaf >= 0 else set()
            if within and all(at.denominator == 1 for at in within) and (length := size * unit).denominator == 1:
                known = self.recurring_cuts.setdefault((leaf, axis), {})
                known.setdefault((period, int(length)), set()).update(map(int, within))

    def request_group_cuts(self, origins: Origins, places: Iterable[int], distance: int = 0) -> None:
        """Record that an axis consists of the groups of a convolution, which begin at some indices."""
        found: dict[tuple[int, int], set[int]] = {}
        for leaf, axis, at in leaf_places(origins, places):
            found.setdefault((leaf, axis), set()).add(at)
        for key, indices in found.items():
            self.group_cuts.setdefault(key, GroupCuts(tuple(sorted(indices)), distance))

    def spread_group_cuts(self, origins: Origins) -> None:
        """Request the groups of a convolution of all leaves along one axis, such as the bias that is added."""
        known = [
            (cuts, unit, start)
            for leaf, axis, unit, start, period in origins
            if (cuts := self.group_cuts.get((leaf, axis))) is not None and unit and not period
        ]
        if known and len(known) < len(origins):
            places = {(cut - start) / unit for cuts, unit, start in known for cut in cuts.places}
            distance = 1 + max(cuts.distance for cuts, _, _ in known)
            self.request_group_cuts(origins, [int(place) for place in places if place.denominator == 1], distance)

    def spread_copies(self, origins: Origins, length: int) -> None:
        """Take all leaves along one axis for stacks where one of them is: a bias added to a stack's result."""
        stacks = [leaf for leaf, *place in origins if leaf >= 0 and place == [0, 1, 0, 0]]
        if any(self.loop_lengths.get(leaf) == length for leaf in stacks):
            for leaf in stacks:
                self.loop_lengths.setdefault(leaf, length)


def leaf_places(origins: Origins, places: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Leaf, axis and index of each cut of a value's axis."""
    for place in places:
        for leaf, axis, unit, start, period in origins:
            # A batch entry has no parts to match, and a cut between two indices of the leaf is no cut of this axis.
            if leaf >= 0 and not period and (at := start + place * unit).denominator == 1:
                yield leaf, axis, int(at)


def single_part(shape: Shape, part: ValuePart, origins: tuple[Origins, ...] | None = None) -> BlockedValue:
    """A value with one part."""
    cells = np.empty((1,) * len(shape), dtype=object)
    cells[(0,) * len(shape)] = part
    return BlockedValue(shape, cells, ((),) * len(shape), origins or (NOWHERE,) * len(shape))


def port_independent_order(axes: Sequence[Origins]) -> list[int]:
    """An order of axes that does not depend on a port's internal layout: axes of batch entries first."""
    entries = [min(((-leaf, at) for leaf, at, *_ in one if leaf < 0), default=None) for one in axes]
    return sorted(range(len(axes)), key=lambda axis: (entries[axis] is None, entries[axis] or (), axis))


def part_spans(cuts: Cuts, size: int) -> list[tuple[int, int]]:
    """(start, stop) of the parts of an axis."""
    return list(pairwise((0, *cuts, size)))


def part_sizes(cuts: Cuts, size: int, period: int = 0) -> list[int]:
    """How many indices of an axis each part has, whose cuts may recur."""
    turns = size // period if period else 1
    return [turns * (stop - start) for start, stop in part_spans(cuts, period or size)]


def part_shape(shape: Shape, cuts: tuple[Cuts, ...], periods: tuple[int, ...], index: tuple[int, ...]) -> Shape:
    """The shape of the part at an index of the grid."""
    axes = zip(shape, cuts, periods, index, strict=True)
    return tuple(part_sizes(places, size, period)[at] for size, places, period, at in axes)


def make_cells(shape: Shape, cuts: tuple[Cuts, ...], make: Callable[[tuple[int, ...]], ValuePart]) -> np.ndarray:
    """A grid of parts, each made from its index."""
    cells = np.empty(tuple(len(places) + 1 for places in cuts), dtype=object)
    for index in np.ndindex(cells.shape):
        cells[index] = make(index)
    return cells


def value_parts(value: BlockedValue) -> list[ValuePart]:
    """All parts, in C order."""
    return list(value.cells.flat)


def merge_cuts(state: WalkState, value: BlockedValue, axes: Iterable[int], total: bool = False) -> BlockedValue:
    """Merge the parts along some axes."""
    cells, cuts, axes = value.cells, list(value.cuts), set(axes)
    for axis in sorted(axes):
        if cuts[axis]:
            cells = _merge_along_axis(state, cells, axis, total)
            cuts[axis] = ()
    periods = tuple(0 if axis in axes else period for axis, period in enumerate(value.periods))
    return BlockedValue(value.shape, cells, tuple(cuts), value.origins, periods)


def _merge_along_axis(state: WalkState, cells: np.ndarray, axis: int, total: bool) -> np.ndarray:
    moved = np.moveaxis(cells, axis, -1)
    found = np.empty(moved.shape[:-1], dtype=object)
    for index in np.ndindex(found.shape):
        found[index] = merge_parts(state.uses, list(moved[index]), total)
    return np.expand_dims(found, axis)


def coarsen_cuts(state: WalkState, value: BlockedValue, axis: int, kept: Cuts) -> BlockedValue:
    """Merge the parts along an axis that no kept cut separates."""
    if set(value.cuts[axis]) <= set(kept):
        return value
    spans = part_spans(value.cuts[axis], value.shape[axis])
    pieces = []
    for start, stop in part_spans(tuple(cut for cut in value.cuts[axis] if cut in kept), value.shape[axis]):
        inside = [place for place, (first, _) in enumerate(spans) if start <= first < stop]
        pieces.append(_merge_along_axis(state, value.cells.take(inside, axis=axis), axis, total=False))
    cuts = replace_item(value.cuts, axis, tuple(cut for cut in value.cuts[axis] if cut in kept))
    return BlockedValue(value.shape, np.concatenate(pieces, axis=axis), cuts, value.origins, value.periods)


def refine_cuts(value: BlockedValue, axis: int, cuts: Cuts, period: int = 0) -> BlockedValue:
    """Cut the value at more indices; a cut part of a leaf becomes a smaller view.

    Args:
        value: with no cuts along the axis, or with some of these.
        axis: the axis.
        cuts: all its cuts.
        period: after how many indices they recur.
    """
    # A unit axis is broadcast against the cut axis of another value: it belongs to every part there.
    if value.cuts[axis] == cuts or value.shape[axis] == 1:
        return value
    end = period or value.shape[axis]
    old = part_spans(value.cuts[axis], end)
    pieces = []
    for start, stop in part_spans(cuts, end):
        # Callers only add cuts, so that each new part lies within one old part.
        at = next(index for index, (first, end) in enumerate(old) if first <= start and stop <= end)
        cell = value.cells.take([at], axis=axis)
        first, length = old[at][0], old[at][1] - old[at][0] if period else 0
        pieces.append(_slice_cells(cell, axis, start - first, stop - first, length))
    changed = replace_item(value.cuts, axis, cuts)
    periods = replace_item(value.periods or (0,) * len(value.shape), axis, period)
    return BlockedValue(value.shape, np.concatenate(pieces, axis=axis), changed, value.origins, periods)


def _slice_cells(cells: np.ndarray, axis: int, start: int, stop: int, period: int) -> np.ndarray:
    def one(view: StridedView | None) -> StridedView | None:
        if view is None or len(view.axes) <= axis:
            return None
        if period:
            return slice_recurring_view(view, axis, start, stop, period)
        return slice_view(view, axis, start, stop)

    return map_views(cells, one)


def map_views(cells: np.ndarray, change: Callable[[StridedView], StridedView | None]) -> np.ndarray:
    """Apply a function to the leaf views of all parts."""
    found = np.empty(cells.shape, dtype=object)
    for index in np.ndindex(cells.shape):
        part: Any = cells[index]
        found[index] = map_part_views(part, change)
    return found


def map_part_views(part: ValuePart, change: Callable[[StridedView], StridedView | None]) -> ValuePart:
    """Apply a function to the leaf views of a part."""
    if not part.leaves:
        return part
    leaves = tuple(held if held.view is None else held._replace(view=change(held.view)) for held in part.leaves)
    return replace(part, leaves=leaves)


def align_cuts(values: Sequence[BlockedValue], axes: Sequence[Sequence[int]]) -> list[BlockedValue]:
    """Give the values equal cuts along corresponding axes: each group in `axes` has one axis per value."""
    found = list(values)
    for group in axes:
        # Unit axes are broadcast. If the other sizes differ too, these axes do not correspond.
        sizes = {value.shape[axis] for value, axis in zip(found, group, strict=True)} - {1}
        if len(sizes) != 1:
            continue
        cuts = tuple(sorted({cut for value, axis in zip(found, group, strict=True) for cut in value.cuts[axis]}))
        found = [refine_cuts(value, axis, cuts) for value, axis in zip(found, group, strict=True)]
    return found


def slice_axis(state: WalkState, value: BlockedValue, axis: int, start: int, stop: int) -> BlockedValue:
    """Slice one axis, and request cuts of the leaves along it at both ends."""
    size = value.shape[axis]
    if (start, stop) == (0, size):
        return value
    # Only a request: this walk goes on with the leaf as it is. `find_cuts` compares
    # the requests of both ports, and the next walk starts with the leaf in parts.
    places = [place for place in (start, stop) if 0 < place < size]
    state.request_cuts(value.origins[axis], places)
    state.request_recurring_cuts(value.origins[axis], places, size)
    if value.period(axis):
        value = merge_cuts(state, value, [axis])
    value = refine_cuts(value, axis, tuple(sorted({*value.cuts[axis], start, stop} - {0, size})))
    inside = [place for place, (first, _) in enumerate(part_spans(value.cuts[axis], size)) if start <= first < stop]
    cuts = tuple(cut - start for cut in value.cuts[axis] if start < cut < stop)
    origins = frozenset(
        (leaf, at, unit, first + start * unit, turn) for leaf, at, unit, first, turn in value.origins[axis]
    )
    return BlockedValue(
        replace_item(value.shape, axis, stop - start),
        value.cells.take(inside, axis=axis),
        replace_item(value.cuts, axis, cuts),
        replace_item(value.origins, axis, origins),
        value.periods,
    )


def concatenate_values(state: WalkState, values: Sequence[BlockedValue], axis: int) -> BlockedValue:
    """Concatenate values along an axis."""
    rank = len(values[0].shape)
    values = [merge_cuts(state, value, value.recurring_axes) for value in values]
    values = align_cuts(values, [[at] * len(values) for at in range(rank) if at != axis])
    cuts: list[int] = []
    offset = 0
    for value in values:
        cuts += [cut + offset for cut in (*value.cuts[axis], value.shape[axis])]
        offset += value.shape[axis]
    origins = tuple(frozenset().union(*(value.origins[at] for value in values)) for at in range(rank))
    cells = np.concatenate([value.cells for value in values], axis=axis)
    return BlockedValue(
        replace_item(values[0].shape, axis, offset),
        cells,
        replace_item(values[0].cuts, axis, tuple(cuts[:-1])),
        # Along the joined axis each value counts from its own 0: there is no one index of a leaf.
        replace_item(origins, axis, NOWHERE),
    )


def replace_item(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    """Replace one item of a tuple."""
    return (*items[:at], item, *items[at + 1 :])
