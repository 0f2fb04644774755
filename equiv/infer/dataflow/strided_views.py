"""Strided views of leaves: every axis of a view is a list of (size, stride) digits of the leaf's memory.

Each element is a mixed-radix number. A digit has a size and a stride in elements of the leaf's memory,
so that reshapes, transposes, flips and slices only regroup, reorder and offset digits; no array is touched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Shape = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Digit:
    """`size` steps of `stride` elements; stride 0 repeats the same element, a negative one runs backwards."""

    size: int
    stride: int


AxisDigits = tuple[Digit, ...]
"""The digits of one axis, the slowest first (C order)."""


@dataclass(frozen=True)
class StridedView:
    """A view of a leaf.

    Attributes:
        axes: the digits of every axis.
        start: offset of the element at index 0 of every axis.
        loop_digits: digits of the loops that slice the leaf, outermost first.
    """

    axes: tuple[AxisDigits, ...]
    start: int = 0
    loop_digits: AxisDigits = ()

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(axis_length(axis) for axis in self.axes)


def axis_length(axis: AxisDigits) -> int:
    """The number of elements of an axis."""
    return math.prod(digit.size for digit in axis)


def row_major_strides(shape: Shape) -> Shape:
    """Strides of a C-contiguous array, in elements."""
    return tuple(list(accumulate([1, *reversed(shape[1:])], lambda done, size: done * size))[::-1]) if shape else ()


def whole_leaf_view(shape: Shape, bounds: Sequence[tuple[int, int]] | None = None) -> StridedView:
    """View of a whole leaf in memory order; or of the block between `bounds`, (start, stop) on every axis."""
    bounds = bounds or [(0, size) for size in shape]
    steps = row_major_strides(shape)
    axes = tuple(merge_digits((Digit(end - start, step),)) for (start, end), step in zip(bounds, steps, strict=True))
    return StridedView(axes, sum(start * step for (start, _), step in zip(bounds, steps, strict=True)))


def merge_digits(axis: Sequence[Digit]) -> AxisDigits:
    """Drop digits of size 1 and merge contiguous ones."""
    found: list[Digit] = []
    for digit in axis:
        if digit.size == 1:
            continue
        # One form for each order of elements: (heads, size) and (heads * size) have to compare equal.
        if found and found[-1].stride == digit.size * digit.stride:
            found[-1] = Digit(found[-1].size * digit.size, digit.stride)
        else:
            found.append(digit)
    return tuple(found)


def split_axis(axis: AxisDigits, sizes: Sequence[int]) -> list[AxisDigits] | None:
    """Split an axis into axes of the given sizes; None where a digit's size is not divisible."""
    left = list(axis)[::-1]
    found: list[AxisDigits] = []
    for size in sizes:
        part: list[Digit] = []
        while size > 1:
            if not left:
                return None
            digit = left.pop()
            if size % digit.size == 0:
                part.append(digit)
                size //= digit.size
            elif digit.size % size == 0:
                inner = digit.size // size
                part.append(Digit(size, digit.stride * inner))
                left.append(Digit(inner, digit.stride))
                size = 1
            else:
                return None
        found.append(merge_digits(part))
    return found


def reshape_view(view: StridedView, shape: Shape) -> StridedView | None:
    """Reshape a view; None where that is no regrouping of digits."""
    digits = tuple(digit for axis in view.axes for digit in axis)
    axes = split_axis(digits, shape)
    return None if axes is None else StridedView(tuple(axes), view.start, view.loop_digits)


def transpose_view(view: StridedView, order: Sequence[int]) -> StridedView:
    """Permute the axes."""
    return StridedView(tuple(view.axes[axis] for axis in order), view.start, view.loop_digits)


def broadcast_view(view: StridedView, shape: Shape, places: Sequence[int]) -> StridedView:
    """Like `broadcast_in_dim`: axis `i` becomes axis `places[i]`; the others have stride 0."""
    axes: list[AxisDigits] = [merge_digits((Digit(size, 0),)) for size in shape]
    for axis, place in zip(view.axes, places, strict=True):
        if axis_length(axis) == shape[place]:
            axes[place] = axis
    return StridedView(tuple(axes), view.start, view.loop_digits)


def flip_view(view: StridedView, axes: Sequence[int]) -> StridedView:
    """Reverse some axes."""
    start, changed = view.start, list(view.axes)
    for axis in axes:
        start += sum((digit.size - 1) * digit.stride for digit in view.axes[axis])
        changed[axis] = tuple(Digit(digit.size, -digit.stride) for digit in view.axes[axis])
    return StridedView(tuple(changed), start, view.loop_digits)


def slice_view(view: StridedView, axis: int, start: int, stop: int) -> StridedView | None:
    """Slice one axis; None where the slice is not a range of the axis' slowest digit."""
    digits = view.axes[axis]
    if (start, stop) == (0, axis_length(digits)):
        return view
    # A range of a faster digit would be many ranges of memory, which start and digits cannot express.
    inner = axis_length(digits[1:])
    if not digits or start % inner or stop % inner:
        return None
    first = Digit((stop - start) // inner, digits[0].stride)
    kept = merge_digits((first, *digits[1:]))
    axes = (*view.axes[:axis], kept, *view.axes[axis + 1 :])
    return StridedView(axes, view.start + start // inner * digits[0].stride, view.loop_digits)


def slice_recurring_view(view: StridedView, axis: int, start: int, stop: int, period: int) -> StridedView | None:
    """Slice an axis in every `period` indices of it; None where the view cannot be split so."""
    split = split_axis(view.axes[axis], (axis_length(view.axes[axis]) // period, period))
    inner = None if split is None else slice_view(StridedView((split[1],), view.start), 0, start, stop)
    if split is None or inner is None:
        return None
    axes = (*view.axes[:axis], merge_digits((*split[0], *inner.axes[0])), *view.axes[axis + 1 :])
    return StridedView(axes, inner.start, view.loop_digits)


def loop_body_view(view: StridedView) -> StridedView:
    """The slice that a loop over the first axis sees in one iteration."""
    return StridedView(view.axes[1:], view.start, (*view.loop_digits, *view.axes[0]))


@dataclass(frozen=True)
class AccessPattern:
    """The order in which an operation uses a leaf or block: equal across libraries, whatever the memory layout.

    Attributes:
        digits: in order of use: loops, then contracted axes, then the rest.
        start: as in `StridedView`.
        first: number of elements along loops and contracted axes.
    """

    digits: AxisDigits
    start: int
    first: int = 1

    @property
    def size(self) -> int:
        """The number of elements."""
        return axis_length(self.digits)


def access_pattern(view: StridedView, first: Sequence[int] = ()) -> AccessPattern:
    """The access pattern of a view, with the axes `first` before the others; axes of stride 0 are dropped."""
    order = [*first, *(axis for axis in range(len(view.axes)) if axis not in first)]
    axes = [view.loop_digits, *(view.axes[axis] for axis in order)]
    # However often a bias is repeated over batch and time, it is one use of each of its elements.
    once = [tuple(digit for digit in axis if digit.stride) for axis in axes]
    before = math.prod(axis_length(axis) for axis in once[: 1 + len(first)])
    return AccessPattern(merge_digits([digit for axis in once for digit in axis]), view.start, before)


def common_digits(left: AccessPattern, right: AccessPattern) -> tuple[tuple[int, int, int], ...] | None:
    """Common refinement of two access patterns, as (size, stride in left, stride in right).

    None where they have none: no reshape and transpose relates the two layouts.
    """
    if left.size != right.size:
        return None
    ours, theirs = list(left.digits), list(right.digits)
    found: list[tuple[int, int, int]] = []
    while ours and theirs:
        # From the fastest digit on, so that both remainders are whole digits.
        one, two = ours.pop(), theirs.pop()
        size = min(one.size, two.size)
        if max(one.size, two.size) % size:
            return None
        for digit, rest in ((one, ours), (two, theirs)):
            if digit.size > size:
                rest.append(Digit(digit.size // size, digit.stride * size))
        found.append((size, one.stride, two.stride))
    return tuple(reversed(found))
