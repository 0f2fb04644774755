"""Which element of one leaf is which of another, and the layouts that express it in a layer table."""

from dataclasses import dataclass
from itertools import pairwise

from equiv.core.layouts import Chain, Flip, Identity, Layout, MergeAxes, Squeeze, SwapAxes, Transpose
from equiv.infer.dataflow.strided_views import AccessPattern, Shape, common_digits, row_major_strides


@dataclass(frozen=True)
class ElementMap:
    """A map from elements of a left leaf to elements of a right one, as strides.

    Attributes:
        starts: offset of the first element on the left and on the right.
        steps: (size, stride on the left, stride on the right), the longest left stride first.
    """

    starts: tuple[int, int]
    steps: tuple[tuple[int, int, int], ...]

    def image(self, left: int) -> int:
        """The offset on the right of an element on the left."""
        rest, right = left - self.starts[0], self.starts[1]
        for size, ours, theirs in self.steps:
            # The longest stride first, like the digits of a number. The bound is for leaves whose strides leave gaps.
            count = min(rest // ours, size - 1)
            rest, right = rest - count * ours, right + count * theirs
        return right

    @property
    def plain(self) -> bool:
        """Whether the elements of both are in the same order."""
        return all(ours == theirs for _, ours, theirs in self.steps)


def element_map(left: AccessPattern, right: AccessPattern) -> ElementMap | None:
    """The element map of two access patterns; None where no reshape, transpose or flip relates them."""
    found = common_digits(left, right)
    if found is None:
        return None
    one, two = left.start, right.start
    steps = []
    for size, ours, theirs in found:
        # Of two ways to write one map the increasing one on the left is taken: maps are compared with `==`.
        if ours < 0:
            one, two = one + (size - 1) * ours, two + (size - 1) * theirs
            ours, theirs = -ours, -theirs
        steps.append((size, ours, theirs))
    tidied: list[tuple[int, int, int]] = []
    for size, ours, theirs in sorted(steps, key=lambda step: -step[1]):
        last = tidied[-1] if tidied else (0, 0, 0)
        if last[1:] == (size * ours, size * theirs):
            tidied[-1] = (last[0] * size, ours, theirs)
        else:
            tidied.append((size, ours, theirs))
    return ElementMap((one, two), tuple(tidied))


def is_part_of(whole: ElementMap, part: ElementMap) -> bool:
    """Whether an element map of parts agrees with that of the whole leaves."""
    one, two = part.starts
    if whole.image(one) != two:
        return False
    # Within one step of the part, the maps can come apart where a step of the whole begins.
    return all(
        whole.image(one + count * ours) == two + count * theirs
        for size, ours, theirs in part.steps
        for count in {1, size - 1, *(longer // ours for _, longer, _ in whole.steps if ours < longer < size * ours)}
    )


@dataclass(frozen=True)
class AxisSteps:
    """One axis of a leaf, as indices of the element map's steps."""

    axis: int
    steps: tuple[int, ...]


def canonical_layouts(found: ElementMap, shapes: tuple[Shape, Shape]) -> tuple[Layout, Layout] | None:
    """Layouts of both whole leaves to one canonical leaf; None where no available layout expresses the element map.

    The canonical axes have the order of the right leaf; steps in one axis of either leaf are in one canonical axis.
    """
    fine = _split_at_axes(found, shapes)
    if fine is None:
        return None
    fine = sorted(fine, key=lambda step: -abs(step[2]))
    right = _steps_by_axis(shapes[1], [abs(step[2]) for step in fine])
    left = _steps_by_axis(shapes[0], [step[1] for step in fine])
    groups = _step_runs(len(fine), [move.steps for move in (*left, *right)])
    if groups is None:
        return None
    # Strides on the left are positive by construction: a flip shows on the right, and is
    # written as a flip of the left axis. An axis of which one half is flipped has no layout.
    flipped = {axis for axis, move in enumerate(left) if any(fine[step][2] < 0 for step in move.steps)}
    if any(fine[step][2] > 0 for axis in flipped for step in left[axis].steps):
        return None
    ours, theirs = _layout_of_moves(shapes[0], left, groups, flipped), _layout_of_moves(shapes[1], right, groups, set())
    return None if ours is None or theirs is None else (ours, theirs)


def _split_at_axes(found: ElementMap, shapes: tuple[Shape, Shape]) -> list[tuple[int, int, int]] | None:
    """The steps, split at the axis boundaries of both leaves."""
    steps = list(found.steps)
    for side, shape in enumerate(shapes):
        for step, size in zip(row_major_strides(shape), shape, strict=True):
            edge = step * size
            for index, (count, ours, theirs) in enumerate(steps):
                own = abs((ours, theirs)[side])
                if own < edge < own * count:
                    if edge % own or count % (edge // own):
                        return None
                    inner = edge // own
                    steps[index : index + 1] = [(count // inner, ours * inner, theirs * inner), (inner, ours, theirs)]
                    break
    return steps


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


def _layout_of_moves(
    shape: Shape, moves: list[AxisSteps], groups: list[tuple[int, int]], flipped: set[int]
) -> Layout | None:
    """The layout from a native leaf to the canonical axes: drop unit axes, flip, permute, merge."""
    found: list[Layout] = []
    unit = tuple(axis - len(shape) for axis, size in enumerate(shape) if size == 1)
    kept = [move for move in moves if move.steps]
    # A leaf of one element keeps its axes: a layout that drops them all would leave a scalar.
    if unit and len(unit) < len(shape):
        found.append(Squeeze(unit))
    if flipped:
        found.append(Flip(tuple(index - len(kept) for index, move in enumerate(kept) if move.axis in flipped)))
    order = sorted(range(len(kept)), key=lambda index: kept[index].steps[0])
    if order != sorted(order):
        moved = [index for index, axis in enumerate(order) if index != axis]
        swap = len(moved) == 2
        found.append(SwapAxes(*(index - len(order) for index in moved)) if swap else Transpose(tuple(order)))
    axes = [kept[index] for index in order]
    for start, stop in reversed(groups):
        inside = [index for index, move in enumerate(axes) if start <= move.steps[0] < stop]
        # From the last axis on, so that negative axis numbers stay valid.
        for index in reversed(inside[:-1]):
            found.append(MergeAxes(index - len(axes)))
            axes.pop(index + 1)
    if not found:
        return Identity()
    return found[0] if len(found) == 1 else Chain(tuple(found))
