"""Names of the axes of a leaf, taken through its layout: what ports store in different orders is compared in one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from equiv.core.annotation import Axes
from equiv.core.leaves import MappedLeaf


@dataclass(frozen=True)
class MergedAxis:
    """The name of an axis that several were merged to, of which not only the slowest has a name."""

    parts: "tuple[Axes | MergedAxis, ...]"

    def __str__(self) -> str:
        return " x ".join(map(str, self.parts))


AxisNames = tuple[Axes | MergedAxis, ...]
"""A name for each axis."""


def canonical_axis_names(leaf: MappedLeaf, names: Sequence[Axes]) -> AxisNames | None:
    """The names of the axes of a canonical leaf; None: its layout does more than to move axes.

    Args:
        leaf: how the leaf is stored.
        names: of the axes that its library stores, from the first on.
    """
    if len(names) > len(leaf.native_shape):
        return None
    axes = zip(leaf.native_shape, _pad(leaf, names), strict=True)
    try:
        return leaf.to_canonical(_NamedArray(tuple(((size, name),) for size, name in axes))).names
    except (AttributeError, IndexError, TypeError, ValueError):
        return None


def stack_axis_names(leaf: MappedLeaf, names: Sequence[Axes]) -> AxisNames:
    """The names of the axes of which a canonical leaf is one index, such as that of a stack of layers."""
    padded = _pad(leaf, names)
    return tuple(padded[axis] for axis in leaf.dropped_axes)


def _pad(leaf: MappedLeaf, names: Sequence[Axes]) -> tuple[Axes, ...]:
    return (*names, *(None,) * (len(leaf.native_shape) - len(names)))


_Axis = tuple[tuple[int, Axes | MergedAxis], ...]
"""Size and name of what an axis was merged from, the slowest first."""


@dataclass(frozen=True)
class _NamedArray:
    """Goes through a layout instead of an array, to see where its axes go."""

    axes: tuple[_Axis, ...]

    dtype = SimpleNamespace(type=float)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(_size(axis) for axis in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def names(self) -> AxisNames:
        return tuple(map(_axis_name, self.axes))

    def transpose(self, *axes: Any) -> "_NamedArray":
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return _NamedArray(tuple(self.axes[axis] for axis in order))

    def swapaxes(self, one: int, other: int) -> "_NamedArray":
        axes = list(self.axes)
        axes[one], axes[other] = axes[other], axes[one]
        return _NamedArray(tuple(axes))

    def squeeze(self, axis: int | Sequence[int]) -> "_NamedArray":
        given = (axis,) if isinstance(axis, int) else axis
        dropped = {one % self.ndim for one in given}
        return _NamedArray(tuple(one for place, one in enumerate(self.axes) if place not in dropped))

    def reshape(self, *shape: Any) -> "_NamedArray":
        wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        parts = [part for axis in self.axes for part in axis if part[0] != 1]
        return _NamedArray(tuple(_take(parts, size) for size in wanted))

    def __getitem__(self, items: tuple[slice, ...]) -> "_NamedArray":
        axes = [
            axis if (size := len(range(*item.indices(_size(axis))))) == _size(axis) else ((size, _axis_name(axis)),)
            for item, axis in zip(items, self.axes, strict=False)
        ]
        return _NamedArray((*axes, *self.axes[len(axes) :]))

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(flip=lambda array, axis: array)

    def _same(self, _: Any) -> "_NamedArray":
        return self

    __add__ = __radd__ = __sub__ = __mul__ = __rmul__ = __truediv__ = _same

    def __neg__(self) -> "_NamedArray":
        return self


def _take(parts: list[tuple[int, Axes | MergedAxis]], size: int) -> _Axis:
    """Take parts of a size from a list; the name of one that is split stays with its slower half.

    Raises:
        ValueError: there are none of this size.
    """
    taken: list[tuple[int, Axes | MergedAxis]] = []
    left = size
    while left > 1:
        length, name = parts.pop(0)
        if length > left:
            if length % left:
                raise ValueError("an axis is split in the middle of another one")
            parts.insert(0, (length // left, None))
            length = left
        elif left % length:
            raise ValueError("an axis is split in the middle of another one")
        taken.append((length, name))
        left //= length
    return tuple(taken)


def _size(axis: _Axis) -> int:
    return math.prod(length for length, _ in axis)


def _axis_name(axis: _Axis) -> Axes | MergedAxis:
    names = [name for _, name in axis]
    while names and names[-1] is None:
        names.pop()
    return None if not names else names[0] if len(names) == 1 else MergedAxis(tuple(names))
