"""Layouts of one leaf beyond reshapes: other axes, flips, constants.

Axes count from the last, so that a leaf stacked over layers takes the same layout as a single one.
"""

from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
"""A numpy or jax array: this module touches neither, only methods both have."""


Region = tuple[tuple[int, int], ...]
"""A block of an array: first and one past the last index, for every axis."""


class Layout(Protocol):
    """An exactly invertible change of layout between a native and a canonical leaf."""

    def canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The canonical shape of a native leaf of that shape."""
        ...

    def to_canonical(self, array: Array) -> Array:
        """Native to canonical."""
        ...

    def to_native(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Canonical to native, whose shape is given."""
        ...


class Part(Protocol):
    """Which block of a native leaf a canonical leaf is, where one native leaf holds several."""

    def region(self, shape: tuple[int, ...]) -> Region:
        """The block of a native leaf of that shape."""
        ...


@dataclass(frozen=True)
class Identity:
    """The same array."""

    def canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape itself."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """The array itself."""
        return array

    def to_native(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array itself."""
        return array


@dataclass(frozen=True)
class DropUnitAxes:
    """Unit axes before the last are dropped: Haiku's batch norm keeps (1, .., features), Flax (features,)."""

    def canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`(1, 1, 8)` to `(8,)`; stacked over layers, `(5, 1, 8)` to `(5, 8)`."""
        return (*(size for size in shape[:-1] if size != 1), *shape[-1:])

    def to_canonical(self, array: Array) -> Array:
        """Reshape to the canonical shape."""
        return array.reshape(self.canonical_shape(array.shape))

    def to_native(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Transpose:
    """Axes in another order: `axes` as in `numpy.transpose`, from native to canonical."""

    axes: tuple[int, ...]

    def canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The permuted shape."""
        return tuple(shape[axis] for axis in self.axes)

    def to_canonical(self, array: Array) -> Array:
        """Permute the axes."""
        return array.transpose(self.axes)

    def to_native(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Permute the axes back."""
        return array.transpose(tuple(self.axes.index(axis) for axis in range(len(self.axes))))


Shape = tuple[int, ...]


@dataclass(frozen=True)
class SwapAxes:
    """Two axes change places: Haiku's transposed convolution keeps (.., out, in), Flax (.., in, out)."""

    one: int = -2
    other: int = -1

    def __str__(self) -> str:
        return f"axes {self.one} and {self.other} swapped"

    def canonical_shape(self, shape: Shape) -> Shape:
        """`(3, 5, 4)` to `(3, 4, 5)`."""
        sizes = list(shape)
        sizes[self.one], sizes[self.other] = sizes[self.other], sizes[self.one]
        return tuple(sizes)

    def to_canonical(self, array: Array) -> Array:
        """Swap the axes."""
        return array.swapaxes(self.one, self.other)

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Swap them back."""
        return array.swapaxes(self.one, self.other)


@dataclass(frozen=True)
class Flip:
    """Some axes run backwards: a transposed convolution with `transpose_kernel=True` keeps its kernel flipped."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"axes {', '.join(map(str, self.axes))} reversed"

    def canonical_shape(self, shape: Shape) -> Shape:
        """The shape itself."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Reverse the axes."""
        return array.__array_namespace__().flip(array, axis=self.axes)

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Reverse them again."""
        return self.to_canonical(array)


@dataclass(frozen=True)
class MergeAxes:
    """An axis and the one after it are one: Flax's attention keeps (.., heads, size), Haiku (.., heads x size)."""

    first: int = -2

    def __str__(self) -> str:
        return f"axes {self.first} and {self.first + 1} merged"

    def canonical_shape(self, shape: Shape) -> Shape:
        """`(7, 2, 3)` to `(7, 6)` for the axis -2, to `(14, 3)` for the axis -3."""
        at = len(shape) + self.first
        return (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])

    def to_canonical(self, array: Array) -> Array:
        """Reshape to the canonical shape."""
        return array.reshape(self.canonical_shape(array.shape))

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Squeeze:
    """Unit axes are dropped: with channels first, the bias of Haiku's convolution is (channels, 1, 1)."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"unit axes {', '.join(map(str, self.axes))} dropped"

    def canonical_shape(self, shape: Shape) -> Shape:
        """`(8, 1, 1)` to `(8,)` for the axes -2 and -1."""
        return tuple(size for axis, size in enumerate(shape, -len(shape)) if axis not in self.axes)

    def to_canonical(self, array: Array) -> Array:
        """Drop the axes; numpy and jax raise where one is longer than 1."""
        return array.squeeze(axis=self.axes)

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Shift:
    """Plus a number that a library hides in its code: `hk.LSTM` adds 1 to its forget gate.

    What is lost: a float plus a number is rounded. The way there and back moves an element by at most one spacing of
    floats of the larger of it and `offset`; by nothing where it is a multiple of that spacing.
    """

    offset: float

    def __str__(self) -> str:
        return f"{self.offset:+g}"

    def canonical_shape(self, shape: Shape) -> Shape:
        """The shape itself."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Add the number, in the array's own dtype."""
        return array + array.dtype.type(self.offset)

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Subtract it."""
        return array - array.dtype.type(self.offset)


@dataclass(frozen=True)
class Chain:
    """Several layouts, the first next to the library."""

    layouts: tuple[Layout, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.layouts))

    def canonical_shape(self, shape: Shape) -> Shape:
        """The shape after all of them."""
        return self._shapes(shape)[-1]

    def _shapes(self, shape: Shape) -> list[Shape]:
        shapes = [shape]
        for layout in self.layouts:
            shapes.append(layout.canonical_shape(shapes[-1]))
        return shapes

    def to_canonical(self, array: Array) -> Array:
        """One after the other."""
        for layout in self.layouts:
            array = layout.to_canonical(array)
        return array

    def to_native(self, array: Array, shape: Shape) -> Array:
        """Back, the last first."""
        for layout, before in zip(reversed(self.layouts), reversed(self._shapes(shape)[:-1]), strict=True):
            array = layout.to_native(array, before)
        return array


def of_updates(layout: Layout) -> Layout:
    """The layout of what an optimizer keeps beside a leaf, such as its momentum: without numbers added."""
    if isinstance(layout, Shift):
        return Identity()
    return Chain(tuple(map(of_updates, layout.layouts))) if isinstance(layout, Chain) else layout
