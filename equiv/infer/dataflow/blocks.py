"""A value as a grid of parts: cut where the program cuts it, along with where its axes come from in the leaves.

A packed leaf (gates side by side, query, key and value in one kernel) falls into parts this way, and a program that
joins leaves and takes the result apart again shows the leaves themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from equiv.infer.dataflow.leaf_uses import Atom, Uses, merged
from equiv.infer.dataflow.strided_views import Shape, View, take

Cuts = tuple[int, ...]


Origin = tuple[int, int, Fraction, Fraction]
"""Leaf, its axis, how many of its indices one step on the value's axis is, and its index at 0.

Batch entries count as leaves before the first: -1, -2, and so on.
"""


Origins = frozenset[Origin]


NOWHERE: Origins = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """A value in parts.

    Attributes:
        shape: of the value.
        cells: the parts, an object array with one axis per axis of the value.
        cuts: for every axis the places where it is cut.
        origins: for every axis the axes of leaves that run along it.
    """

    shape: Shape
    cells: np.ndarray
    cuts: tuple[Cuts, ...]
    origins: tuple[Origins, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """An equation as it was walked: what goes in and comes out, and where it stands."""

    name: str
    ins: list[Value]
    outs: list[Value]
    path: tuple[Any, ...]


@dataclass
class Scene:
    """What a walk over a program has found so far.

    Attributes:
        uses: of leaves and inputs.
        wanted: leaf and its axis to the places where the program cuts it.
        turned: leaf to the number of turns of the loop that slices it on its first axis.
        steps: every equation that is no call or loop.
    """

    uses: Uses = field(default_factory=Uses)
    wanted: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    turned: dict[int, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def want(self, origins: Origins, places: Iterable[int]) -> None:
        """Note that the program cuts an axis at some places."""
        for place in places:
            for leaf, axis, unit, start in origins:
                if leaf >= 0 and (at := start + place * unit).denominator == 1:
                    self.wanted.setdefault((leaf, axis), set()).add(int(at))


def single(shape: Shape, atom: Atom, origins: tuple[Origins, ...] | None = None) -> Value:
    """A value of one part."""
    cells = np.empty((1,) * len(shape), dtype=object)
    cells[(0,) * len(shape)] = atom
    return Value(shape, cells, ((),) * len(shape), origins or (NOWHERE,) * len(shape))


def order(axes: Sequence[Origins]) -> list[int]:
    """Axes in an order that does not hang on how a port arranges its values: first those of batch entries, as there."""
    entries = [min(((-leaf, at) for leaf, at, _, _ in one if leaf < 0), default=None) for one in axes]
    return sorted(range(len(axes)), key=lambda axis: (entries[axis] is None, entries[axis] or (), axis))


def spans(cuts: Cuts, size: int) -> list[tuple[int, int]]:
    """The parts of an axis, as first and one past the last index."""
    return list(pairwise((0, *cuts, size)))


def filled(shape: Shape, cuts: tuple[Cuts, ...], make: Callable[[tuple[int, ...]], Atom]) -> np.ndarray:
    """Parts, each made from its place in the grid."""
    cells = np.empty(tuple(len(places) + 1 for places in cuts), dtype=object)
    for index in np.ndindex(cells.shape):
        cells[index] = make(index)
    return cells


def parts(value: Value) -> list[Atom]:
    """All parts, in order."""
    return list(value.cells.flat)


def collapsed(scene: Scene, value: Value, axes: Iterable[int], total: bool = False) -> Value:
    """The value with some axes uncut."""
    cells, cuts = value.cells, list(value.cuts)
    for axis in axes:
        if cuts[axis]:
            cells = _reduced(scene, cells, axis, total)
            cuts[axis] = ()
    return Value(value.shape, cells, tuple(cuts), value.origins)


def _reduced(scene: Scene, cells: np.ndarray, axis: int, total: bool) -> np.ndarray:
    moved = np.moveaxis(cells, axis, -1)
    found = np.empty(moved.shape[:-1], dtype=object)
    for index in np.ndindex(found.shape):
        found[index] = merged(scene.uses, list(moved[index]), total)
    return np.expand_dims(found, axis)


def refined(value: Value, axis: int, cuts: Cuts) -> Value:
    """The value cut at more places; a part of a leaf that is cut is a view of that part."""
    if value.cuts[axis] == cuts or value.shape[axis] == 1:
        return value
    old = spans(value.cuts[axis], value.shape[axis])
    pieces = []
    for start, stop in spans(cuts, value.shape[axis]):
        at = next(index for index, (first, end) in enumerate(old) if first <= start and stop <= end)
        cell = value.cells.take([at], axis=axis)
        pieces.append(_cut(cell, axis, start - old[at][0], stop - old[at][0]))
    changed = tuple(cuts if index == axis else places for index, places in enumerate(value.cuts))
    return Value(value.shape, np.concatenate(pieces, axis=axis), changed, value.origins)


def _cut(cells: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    def one(view: View | None) -> View | None:
        return None if view is None or len(view.axes) <= axis else take(view, axis, start, stop)

    return viewed(cells, one)


def viewed(cells: np.ndarray, change: Callable[[View], View | None]) -> np.ndarray:
    """The parts with every leaf seen otherwise."""
    found = np.empty(cells.shape, dtype=object)
    for index in np.ndindex(cells.shape):
        atom: Any = cells[index]
        found[index] = seen(atom, change)
    return found


def seen(atom: Atom, change: Callable[[View], View | None]) -> Atom:
    """A part with its leaves seen otherwise."""
    if not atom.leaves:
        return atom
    leaves = tuple(held if held.view is None else held._replace(view=change(held.view)) for held in atom.leaves)
    return replace(atom, leaves=leaves)


def aligned(values: Sequence[Value], axes: Sequence[Sequence[int]]) -> list[Value]:
    """The values cut alike along axes that belong together: `axes` has, for each group, an axis of every value."""
    found = list(values)
    for group in axes:
        sizes = {value.shape[axis] for value, axis in zip(found, group, strict=True)} - {1}
        if len(sizes) != 1:
            continue
        cuts = tuple(sorted({cut for value, axis in zip(found, group, strict=True) for cut in value.cuts[axis]}))
        found = [refined(value, axis, cuts) for value, axis in zip(found, group, strict=True)]
    return found


def sliced(scene: Scene, value: Value, axis: int, start: int, stop: int) -> Value:
    """A run of one axis. Where it begins and ends is where the leaves along that axis are cut."""
    size = value.shape[axis]
    if (start, stop) == (0, size):
        return value
    scene.want(value.origins[axis], [place for place in (start, stop) if 0 < place < size])
    value = refined(value, axis, tuple(sorted({*value.cuts[axis], start, stop} - {0, size})))
    inside = [place for place, (first, _) in enumerate(spans(value.cuts[axis], size)) if start <= first < stop]
    cuts = tuple(cut - start for cut in value.cuts[axis] if start < cut < stop)
    origins = frozenset((leaf, at, unit, begin + start * unit) for leaf, at, unit, begin in value.origins[axis])
    return Value(
        put(value.shape, axis, stop - start),
        value.cells.take(inside, axis=axis),
        put(value.cuts, axis, cuts),
        put(value.origins, axis, origins),
    )


def joined(scene: Scene, values: Sequence[Value], axis: int) -> Value:
    """Values side by side along an axis."""
    rank = len(values[0].shape)
    values = aligned(values, [[at] * len(values) for at in range(rank) if at != axis])
    cuts: list[int] = []
    offset = 0
    for value in values:
        cuts += [cut + offset for cut in (*value.cuts[axis], value.shape[axis])]
        offset += value.shape[axis]
    origins = tuple(frozenset().union(*(value.origins[at] for value in values)) for at in range(rank))
    cells = np.concatenate([value.cells for value in values], axis=axis)
    return Value(
        put(values[0].shape, axis, offset),
        cells,
        put(values[0].cuts, axis, tuple(cuts[:-1])),
        put(origins, axis, NOWHERE),
    )


def put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    """A tuple with one item replaced."""
    return (*items[:at], item, *items[at + 1 :])
