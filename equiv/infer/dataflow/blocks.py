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
from equiv.infer.dataflow.strided_views import Shape, StridedView, slice_view

Cuts = tuple[int, ...]

# Fractions, because an axis that merges several axes of a leaf has many
# indices for one index of the leaf. A float would round the place of a cut.
Origin = tuple[int, int, Fraction, Fraction]
"""Leaf, its axis, the leaf indices per index of the value's axis, and the leaf index at 0.

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
    """

    shape: Shape
    cells: np.ndarray
    cuts: tuple[Cuts, ...]
    origins: tuple[Origins, ...]


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
        loop_lengths: leaf to the length of the loop or `vmap` that slices it on its first axis.
        group_cuts: leaf and axis to the groups of a convolution along it.
        equations: every equation that is neither a call nor a loop.
    """

    uses: LeafUses = field(default_factory=LeafUses)
    wanted_cuts: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    loop_lengths: dict[int, int] = field(default_factory=dict)
    group_cuts: dict[tuple[int, int], GroupCuts] = field(default_factory=dict)
    equations: list[WalkedEquation] = field(default_factory=list)

    def request_cuts(self, origins: Origins, places: Iterable[int]) -> None:
        """Record that the program cuts an axis at some indices."""
        for leaf, axis, at in leaf_places(origins, places):
            self.wanted_cuts.setdefault((leaf, axis), set()).add(at)

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
            for leaf, axis, unit, start in origins
            if (cuts := self.group_cuts.get((leaf, axis))) is not None and unit
        ]
        if known and len(known) < len(origins):
            places = {(cut - start) / unit for cuts, unit, start in known for cut in cuts.places}
            distance = 1 + max(cuts.distance for cuts, _, _ in known)
            self.request_group_cuts(origins, [int(place) for place in places if place.denominator == 1], distance)

    def spread_copies(self, origins: Origins, length: int) -> None:
        """Take all leaves along one axis for stacks where one of them is: a bias added to a stack's result."""
        stacks = [leaf for leaf, *place in origins if leaf >= 0 and place == [0, 1, 0]]
        if any(self.loop_lengths.get(leaf) == length for leaf in stacks):
            for leaf in stacks:
                self.loop_lengths.setdefault(leaf, length)


def leaf_places(origins: Origins, places: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Leaf, axis and index of each cut of a value's axis."""
    for place in places:
        for leaf, axis, unit, start in origins:
            # A batch entry has no parts to match, and a cut between two indices of the leaf is no cut of this axis.
            if leaf >= 0 and (at := start + place * unit).denominator == 1:
                yield leaf, axis, int(at)


def single_part(shape: Shape, part: ValuePart, origins: tuple[Origins, ...] | None = None) -> BlockedValue:
    """A value with one part."""
    cells = np.empty((1,) * len(shape), dtype=object)
    cells[(0,) * len(shape)] = part
    return BlockedValue(shape, cells, ((),) * len(shape), origins or (NOWHERE,) * len(shape))


def port_independent_order(axes: Sequence[Origins]) -> list[int]:
    """An order of axes that does not depend on a port's internal layout: axes of batch entries first."""
    entries = [min(((-leaf, at) for leaf, at, _, _ in one if leaf < 0), default=None) for one in axes]
    return sorted(range(len(axes)), key=lambda axis: (entries[axis] is None, entries[axis] or (), axis))


def part_spans(cuts: Cuts, size: int) -> list[tuple[int, int]]:
    """(start, stop) of the parts of an axis."""
    return list(pairwise((0, *cuts, size)))


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
    cells, cuts = value.cells, list(value.cuts)
    for axis in axes:
        if cuts[axis]:
            cells = _merge_along_axis(state, cells, axis, total)
            cuts[axis] = ()
    return BlockedValue(value.shape, cells, tuple(cuts), value.origins)


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
    return BlockedValue(value.shape, np.concatenate(pieces, axis=axis), cuts, value.origins)


def refine_cuts(value: BlockedValue, axis: int, cuts: Cuts) -> BlockedValue:
    """Cut the value at more indices; a cut part of a leaf becomes a smaller view."""
    # A unit axis is broadcast against the cut axis of another value: it belongs to every part there.
    if value.cuts[axis] == cuts or value.shape[axis] == 1:
        return value
    old = part_spans(value.cuts[axis], value.shape[axis])
    pieces = []
    for start, stop in part_spans(cuts, value.shape[axis]):
        # Callers only add cuts, so that each new part lies within one old part.
        at = next(index for index, (first, end) in enumerate(old) if first <= start and stop <= end)
        cell = value.cells.take([at], axis=axis)
        pieces.append(_slice_cells(cell, axis, start - old[at][0], stop - old[at][0]))
    changed = tuple(cuts if index == axis else places for index, places in enumerate(value.cuts))
    return BlockedValue(value.shape, np.concatenate(pieces, axis=axis), changed, value.origins)


def _slice_cells(cells: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    def one(view: StridedView | None) -> StridedView | None:
        return None if view is None or len(view.axes) <= axis else slice_view(view, axis, start, stop)

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
    state.request_cuts(value.origins[axis], [place for place in (start, stop) if 0 < place < size])
    value = refine_cuts(value, axis, tuple(sorted({*value.cuts[axis], start, stop} - {0, size})))
    inside = [place for place, (first, _) in enumerate(part_spans(value.cuts[axis], size)) if start <= first < stop]
    cuts = tuple(cut - start for cut in value.cuts[axis] if start < cut < stop)
    origins = frozenset((leaf, at, unit, begin + start * unit) for leaf, at, unit, begin in value.origins[axis])
    return BlockedValue(
        replace_item(value.shape, axis, stop - start),
        value.cells.take(inside, axis=axis),
        replace_item(value.cuts, axis, cuts),
        replace_item(value.origins, axis, origins),
    )


def concatenate_values(state: WalkState, values: Sequence[BlockedValue], axis: int) -> BlockedValue:
    """Concatenate values along an axis."""
    rank = len(values[0].shape)
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
