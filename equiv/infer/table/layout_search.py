"""Find the layouts that express an element map in a layer table, and check them with an array.

Whole leaves only: for a part of a leaf, the element map and the shapes are those within the part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from equiv.core.layouts import Chain, Flip, Identity, Layout, MergeAxes, SplitAxis, Squeeze, SwapAxes, Transpose
from equiv.infer.dataflow.strided_views import Shape, row_major_strides
from equiv.infer.matching.relations import ElementMap

Step = tuple[int, int, int]
"""Size, stride on the left and stride on the right, as in an `ElementMap`."""


@dataclass(frozen=True)
class AxisSteps:
    """One axis of a leaf, as indices of the element map's steps."""

    axis: int
    steps: tuple[int, ...]


def canonical_layouts(found: ElementMap, shapes: tuple[Shape, Shape]) -> tuple[Layout, Layout] | None:
    """Layouts of both whole leaves to one canonical leaf; None where no available layout expresses the element map.

    The first that is found of: the axes of both leaves permuted and merged, in the order of the right leaf or else of
    the left one; the axes of one leaf split, permuted and merged to those of the other.
    """
    if any(prod(shape) != prod(size for size, _, _ in found.steps) for shape in shapes):
        return None
    if not found.steps:
        return _one_element_layouts(shapes)
    steps, whole = _split_at_axes(found, shapes)
    ways = [_merged_layouts(steps, shapes, side) for side in (1, 0)] if whole else []
    ways += sorted((_rearranged_layouts(steps, shapes, side) for side in (0, 1)), key=_count_layouts)
    # What is written has been applied to every element once: a mistake in the search is no wrong row.
    return next((way for way in ways if way is not None and layouts_agree(way, found, shapes)), None)


def layouts_agree(layouts: tuple[Layout, Layout], found: ElementMap, shapes: tuple[Shape, Shape]) -> bool:
    """Whether layouts of two leaves bring every element to where the element map has it."""
    left, right = (layout.canonical_shape(shape) for layout, shape in zip(layouts, shapes, strict=True))
    if left != right:
        return False
    if layouts == (Identity(), Identity()) and found.plain:
        return found.starts == (0, 0)
    size = prod(shapes[0])
    numbers = np.arange(size, dtype="int32" if size < 2**31 else "int64")
    moved = layouts[1].to_native(layouts[0].to_canonical(numbers.reshape(shapes[0])), shapes[1])
    sizes = [size for size, _, _ in found.steps]
    one, two = (
        np.lib.stride_tricks.as_strided(
            np.ascontiguousarray(array).reshape(-1)[start:],
            sizes,
            [step[1 + side] * numbers.itemsize for step in found.steps],
            writeable=False,
        )
        for side, (array, start) in enumerate(zip((numbers, moved), found.starts, strict=True))
    )
    return np.array_equal(one, two)


def _one_element_layouts(shapes: tuple[Shape, Shape]) -> tuple[Layout, Layout]:
    """Layouts of two leaves of one element each: axes are dropped until both have as many."""
    rank = min(map(len, shapes))
    left, right = (_as_layout([Squeeze(tuple(range(-len(one), -rank)))] if len(one) > rank else []) for one in shapes)
    return left, right


def _count_layouts(way: tuple[Layout, Layout] | None) -> int:
    return sum(len(one.layouts) if isinstance(one, Chain) else one != Identity() for one in way or ())


def _merged_layouts(steps: list[Step], shapes: tuple[Shape, Shape], side: int) -> tuple[Layout, Layout] | None:
    """Layouts that merge axes, in the order of one side's leaf; None where steps of an axis are not contiguous in it.

    Steps in one axis of either leaf are in one canonical axis.
    """
    fine = sorted(steps, key=lambda step: -abs(step[1 + side]))
    right = _steps_by_axis(shapes[1], [abs(step[2]) for step in fine])
    left = _steps_by_axis(shapes[0], [step[1] for step in fine])
    groups = _step_runs(len(fine), [move.steps for move in (*left, *right)])
    if groups is None:
        return None
    # Strides on the left are positive by construction: a flip shows on the right, and is
    # written as a flip of the left axis. An axis of which one half is flipped is not flipped as a whole.
    flipped = {axis for axis, move in enumerate(left) if any(fine[step][2] < 0 for step in move.steps)}
    if any(fine[step][2] > 0 for axis in flipped for step in left[axis].steps):
        return None
    return _layout_of_moves(shapes[0], left, groups, flipped), _layout_of_moves(shapes[1], right, groups, set())


def _rearranged_layouts(steps: list[Step], shapes: tuple[Shape, Shape], side: int) -> tuple[Layout, Layout]:
    """Layouts that turn the leaf of one side into that of the other, whose axes are the canonical ones."""
    target = _without_unit_axes(shapes[1 - side])
    found: list[Layout] = list(_drop_unit_axes(shapes[side]))
    ours = sorted(steps, key=lambda step: -abs(step[1 + side]))
    sizes = [step[0] for step in ours]
    found += _regroup_axes(_without_unit_axes(shapes[side]), sizes)
    if flipped := tuple(place - len(ours) for place, step in enumerate(ours) if step[2] < 0):
        found.append(Flip(flipped))
    order = sorted(range(len(ours)), key=lambda place: -abs(ours[place][2 - side]))
    found += _permute_axes(order)
    found += _regroup_axes([sizes[place] for place in order], target)
    own, other = _as_layout(found), _as_layout(list(_drop_unit_axes(shapes[1 - side])))
    return (own, other) if side == 0 else (other, own)


def _regroup_axes(sizes: Sequence[int], target: Sequence[int]) -> list[Layout]:
    """Layouts that reshape axes of some sizes, none of them 1, to those of a target: merge, then split."""
    found: list[Layout] = []
    axes, ends = list(sizes), {*_row_lengths(target)}
    # From the last axis on, so that negative axis numbers stay valid.
    for place in range(len(axes) - 1, 0, -1):
        if prod(axes[place:]) not in ends:
            found.append(MergeAxes(place - 1 - len(axes)))
            axes[place - 1 : place + 1] = [axes[place - 1] * axes[place]]
    # Now each axis of the target lies in one axis.
    rest = list(target)[::-1]
    for place, size in enumerate(axes):
        parts: list[int] = []
        while prod(parts) < size:
            parts.append(rest.pop())
        if len(parts) > 1:
            found.append(SplitAxis(place - len(axes), tuple(parts)))
    return found


def _row_lengths(sizes: Sequence[int]) -> list[int]:
    """For every axis the number of elements at one of its indices, times its size."""
    return list(accumulate(reversed(sizes), lambda done, size: done * size))


def _without_unit_axes(shape: Shape) -> list[int]:
    return [size for size in shape if size > 1]


def _drop_unit_axes(shape: Shape) -> tuple[Layout, ...]:
    unit = tuple(axis - len(shape) for axis, size in enumerate(shape) if size == 1)
    return (Squeeze(unit),) if unit else ()


def _permute_axes(order: Sequence[int]) -> list[Layout]:
    moved = [place for place, axis in enumerate(order) if place != axis]
    if not moved:
        return []
    if len(moved) == 2:
        return [SwapAxes(*(place - len(order) for place in moved))]
    return [Transpose(tuple(order))]


def _as_layout(found: Sequence[Layout]) -> Layout:
    if not found:
        return Identity()
    return found[0] if len(found) == 1 else Chain(tuple(found))


def _split_at_axes(found: ElementMap, shapes: tuple[Shape, Shape]) -> tuple[list[Step], bool]:
    """The steps, split at the axis boundaries of both leaves; and whether all of them could be split so."""
    steps, whole = list(found.steps), True
    for side, shape in enumerate(shapes):
        for step, size in zip(row_major_strides(shape), shape, strict=True):
            edge = step * size
            for index, (count, ours, theirs) in enumerate(steps):
                own = abs((ours, theirs)[side])
                if own < edge < own * count:
                    if edge % own or count % (edge // own):
                        whole = False
                        break
                    inner = edge // own
                    steps[index : index + 1] = [(count // inner, ours * inner, theirs * inner), (inner, ours, theirs)]
                    break
    return steps, whole


def _steps_by_axis(shape: Shape, own: list[int]) -> list[AxisSteps]:
    """The steps within each axis, the longest stride first."""
    found = []
    for axis, (step, size) in enumerate(zip(row_major_strides(shape), shape, strict=True)):
        inside = [index for index, stride in enumerate(own) if step <= stride < step * size]
        found.append(AxisSteps(axis, tuple(sorted(inside, key=lambda index: -own[index]))))
    return found


def _step_runs(number: int, runs: list[tuple[int, ...]]) -> list[tuple[int, int]] | None:
    """The finest ranges of steps such that no axis spans two; None where an axis' steps are not contiguous."""
    edges = set(range(number + 1))
    for run in runs:
        if run and run != tuple(range(run[0], run[0] + len(run))):
            return None
        edges -= set(run[1:])
    ends = sorted(edges)
    return list(pairwise(ends))


def _layout_of_moves(shape: Shape, moves: list[AxisSteps], groups: list[tuple[int, int]], flipped: set[int]) -> Layout:
    """The layout from a native leaf to the canonical axes: drop unit axes, flip, permute, merge."""
    found = list(_drop_unit_axes(shape))
    kept = [move for move in moves if move.steps]
    if flipped:
        found.append(Flip(tuple(index - len(kept) for index, move in enumerate(kept) if move.axis in flipped)))
    order = sorted(range(len(kept)), key=lambda index: kept[index].steps[0])
    found += _permute_axes(order)
    axes = [kept[index] for index in order]
    for start, stop in reversed(groups):
        inside = [index for index, move in enumerate(axes) if start <= move.steps[0] < stop]
        # From the last axis on, so that negative axis numbers stay valid.
        for index in reversed(inside[:-1]):
            found.append(MergeAxes(index - len(axes)))
            axes.pop(index + 1)
    return _as_layout(found)
