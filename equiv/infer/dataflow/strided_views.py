"""How a program looks at a leaf: every axis of the view as digits of the leaf's own memory.

A number in a mixed base names each element. A digit says how many steps it takes and how far apart in memory they
lie, so that reshapes, transposes, flips and slices only regroup, reorder and offset digits; no array is touched.
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


Axis = tuple[Digit, ...]
"""The digits of one axis, the slowest first."""


@dataclass(frozen=True)
class View:
    """A view of a leaf.

    Attributes:
        axes: digits of every axis.
        start: the element of the leaf at index 0 of every axis.
        turns: digits of the loops that slice the leaf, outermost first.
    """

    axes: tuple[Axis, ...]
    start: int = 0
    turns: Axis = ()

    @property
    def shape(self) -> Shape:
        """The view's shape."""
        return tuple(length(axis) for axis in self.axes)


def length(axis: Axis) -> int:
    """How many elements an axis has."""
    return math.prod(digit.size for digit in axis)


def strides(shape: Shape) -> Shape:
    """Elements between neighbours on every axis, the last axis fastest."""
    return tuple(list(accumulate([1, *reversed(shape[1:])], lambda done, size: done * size))[::-1]) if shape else ()


def whole(shape: Shape, bounds: Sequence[tuple[int, int]] | None = None) -> View:
    """A leaf of that shape as it lies; or the block of it between `bounds`, first and one past the last index."""
    bounds = bounds or [(0, size) for size in shape]
    steps = strides(shape)
    axes = tuple(tidy((Digit(end - start, step),)) for (start, end), step in zip(bounds, steps, strict=True))
    return View(axes, sum(start * step for (start, _), step in zip(bounds, steps, strict=True)))


def tidy(axis: Sequence[Digit]) -> Axis:
    """The digits without those of one step; two that run on into each other are one."""
    found: list[Digit] = []
    for digit in axis:
        if digit.size == 1:
            continue
        if found and found[-1].stride == digit.size * digit.stride:
            found[-1] = Digit(found[-1].size * digit.size, digit.stride)
        else:
            found.append(digit)
    return tuple(found)


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
    """An axis as several, whose sizes are given; None where a digit would have to be broken unevenly."""
    left = list(axis)[::-1]
    found: list[Axis] = []
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
        found.append(tidy(part))
    return found


def reshape(view: View, shape: Shape) -> View | None:
    """The view in another shape; None where it is no regrouping of digits."""
    digits = tuple(digit for axis in view.axes for digit in axis)
    axes = split(digits, shape)
    return None if axes is None else View(tuple(axes), view.start, view.turns)


def transpose(view: View, order: Sequence[int]) -> View:
    """The axes in another order."""
    return View(tuple(view.axes[axis] for axis in order), view.start, view.turns)


def broadcast(view: View, shape: Shape, places: Sequence[int]) -> View:
    """As `broadcast_in_dim`: axis `i` becomes axis `places[i]`; the others repeat."""
    axes: list[Axis] = [tidy((Digit(size, 0),)) for size in shape]
    for axis, place in zip(view.axes, places, strict=True):
        if length(axis) == shape[place]:
            axes[place] = axis
    return View(tuple(axes), view.start, view.turns)


def flip(view: View, axes: Sequence[int]) -> View:
    """Some axes backwards."""
    start, changed = view.start, list(view.axes)
    for axis in axes:
        start += sum((digit.size - 1) * digit.stride for digit in view.axes[axis])
        changed[axis] = tuple(Digit(digit.size, -digit.stride) for digit in view.axes[axis])
    return View(tuple(changed), start, view.turns)


def take(view: View, axis: int, start: int, stop: int) -> View | None:
    """A slice of one axis; None where it is not a run of the axis' slowest digit."""
    digits = view.axes[axis]
    if (start, stop) == (0, length(digits)):
        return view
    inner = length(digits[1:])
    if not digits or start % inner or stop % inner:
        return None
    first = Digit((stop - start) // inner, digits[0].stride)
    kept = tidy((first, *digits[1:]))
    axes = (*view.axes[:axis], kept, *view.axes[axis + 1 :])
    return View(axes, view.start + start // inner * digits[0].stride, view.turns)


def turn(view: View) -> View:
    """What a loop over the first axis sees of it in one turn."""
    return View(view.axes[1:], view.start, (*view.turns, *view.axes[0]))


@dataclass(frozen=True)
class Form:
    """A leaf, or a block of one, as an operation uses it: the same in every library that stores it otherwise.

    Attributes:
        digits: in the order of use: turns of loops, then what is summed over, then the rest.
        start: as in `View`.
    """

    digits: Axis
    start: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return length(self.digits)


def form(view: View, first: Sequence[int] = ()) -> Form:
    """The form of a view, with the axes `first` before the others; axes that repeat drop out."""
    order = [*first, *(axis for axis in range(len(view.axes)) if axis not in first)]
    digits = [digit for axis in order for digit in view.axes[axis]]
    return Form(tidy([digit for digit in (*view.turns, *digits) if digit.stride]), view.start)


def together(left: Form, right: Form) -> tuple[tuple[int, int, int], ...] | None:
    """Both forms in the finest digits that either has, as (size, stride in left, stride in right).

    None where they have no common digits: the two leaves lie in ways that no reshape and transpose joins.
    """
    if left.size != right.size:
        return None
    ours, theirs = list(left.digits), list(right.digits)
    found: list[tuple[int, int, int]] = []
    while ours and theirs:
        one, two = ours.pop(), theirs.pop()
        size = min(one.size, two.size)
        if max(one.size, two.size) % size:
            return None
        for digit, rest in ((one, ours), (two, theirs)):
            if digit.size > size:
                rest.append(Digit(digit.size // size, digit.stride * size))
        found.append((size, one.stride, two.stride))
    return tuple(reversed(found))
