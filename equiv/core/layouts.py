"""Layouts: how a native leaf maps to a canonical one by transposing, flipping, merging axes, adding or multiplying.

Axes are negative (counted from the last), so that a leaf stacked over layers takes the same layout as a single one.

A layout is of one leaf and loses nothing but what it says. So what is folded into a leaf together with another one has
none: a sum of two leaves, or a bias in the mean of a batch norm after it, does not say what each of the two was. Where
one port has both and the other their sum, a row `only` holds one of them at 0.
"""

from dataclasses import dataclass
from typing import Any, Protocol

ArrayShape = tuple[int, ...]

Array = Any
"""A numpy or jax array; this module imports neither and uses only methods that both have."""

Region = tuple[tuple[int, int], ...]
"""A block of an array: start and stop index of every axis."""


class Layout(Protocol):
    """An invertible change of layout between a native and a canonical leaf; exact for all but `Shift`."""

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """The canonical shape of a native leaf of the given shape."""
        ...

    def to_canonical(self, array: Array) -> Array:
        """Convert a native array to canonical."""
        ...

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Convert a canonical array to native, with the given native shape."""
        ...


class Part(Protocol):
    """The block of a native leaf that one canonical leaf is, if the native leaf contains several."""

    @property
    def dropped_axes(self) -> tuple[int, ...]:
        """Axes of the native leaf, counted from 0, of which one index is taken: the canonical leaf lacks them."""
        ...

    def grid(self, shape: ArrayShape) -> ArrayShape:
        """The shape in which `region` counts: that of the native leaf, or with an axis of it as two."""
        ...

    def region(self, shape: ArrayShape) -> Region:
        """The block within a native leaf of the given shape, reshaped to the grid."""
        ...


@dataclass(frozen=True)
class Identity:
    """Native and canonical array are the same."""

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """Return the shape unchanged."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Return the array unchanged."""
        return array

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Return the array unchanged."""
        return array


@dataclass(frozen=True)
class DropUnitAxes:
    """Drop all unit axes but the last: Haiku's batch norm stores (1, .., features), Flax (features,)."""

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """`(1, 1, 8)` to `(8,)`; stacked over layers, `(5, 1, 8)` to `(5, 8)`."""
        return (*(size for size in shape[:-1] if size != 1), *shape[-1:])

    def to_canonical(self, array: Array) -> Array:
        """Reshape to the canonical shape."""
        return array.reshape(self.canonical_shape(array.shape))

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Transpose:
    """Permute the axes: `axes` as in `numpy.transpose`, from native to canonical."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"axes in the order {', '.join(map(str, self.axes))}"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """The permuted shape."""
        return tuple(shape[axis] for axis in self.axes)

    def to_canonical(self, array: Array) -> Array:
        """Permute the axes."""
        return array.transpose(self.axes)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Permute the axes back."""
        return array.transpose(tuple(self.axes.index(axis) for axis in range(len(self.axes))))


@dataclass(frozen=True)
class SwapAxes:
    """Swap two axes: Haiku's transposed convolution stores (.., out, in), Flax (.., in, out)."""

    one: int = -2
    other: int = -1

    def __str__(self) -> str:
        return f"axes {self.one} and {self.other} swapped"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """`(3, 5, 4)` to `(3, 4, 5)`."""
        sizes = list(shape)
        sizes[self.one], sizes[self.other] = sizes[self.other], sizes[self.one]
        return tuple(sizes)

    def to_canonical(self, array: Array) -> Array:
        """Swap the axes."""
        return array.swapaxes(self.one, self.other)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Swap them back."""
        return array.swapaxes(self.one, self.other)


@dataclass(frozen=True)
class Flip:
    """Reverse some axes: a transposed convolution with `transpose_kernel=True` stores its kernel flipped."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"axes {', '.join(map(str, self.axes))} reversed"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """Return the shape unchanged."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Reverse the axes."""
        return array.__array_namespace__().flip(array, axis=self.axes)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Reverse them again."""
        return self.to_canonical(array)


@dataclass(frozen=True)
class MergeAxes:
    """Merge an axis with the next one: Flax's attention stores (.., heads, size), Haiku (.., heads x size)."""

    first: int = -2

    def __str__(self) -> str:
        return f"axes {self.first} and {self.first + 1} merged"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """`(7, 2, 3)` to `(7, 6)` for the axis -2, to `(14, 3)` for the axis -3."""
        axis = len(shape) + self.first
        return (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])

    def to_canonical(self, array: Array) -> Array:
        """Reshape to the canonical shape."""
        return array.reshape(self.canonical_shape(array.shape))

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class SplitAxis:
    """Split an axis into several, the slowest first: (.., heads x size) to (.., heads, size)."""

    axis: int
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return f"axis {self.axis} split into {' x '.join(map(str, self.sizes))}"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """`(7, 6)` to `(7, 2, 3)` for the axis -1 and the sizes (2, 3)."""
        axis = len(shape) + self.axis
        return (*shape[:axis], *self.sizes, *shape[axis + 1 :])

    def to_canonical(self, array: Array) -> Array:
        """Reshape to the canonical shape; numpy and jax raise where the sizes do not make up the axis."""
        return array.reshape(self.canonical_shape(array.shape))

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Squeeze:
    """Drop the given unit axes: with channels first, the bias of Haiku's convolution is (channels, 1, 1)."""

    axes: tuple[int, ...]

    def __str__(self) -> str:
        return f"unit axes {', '.join(map(str, self.axes))} dropped"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """`(8, 1, 1)` to `(8,)` for the axes -2 and -1."""
        return tuple(size for axis, size in enumerate(shape, -len(shape)) if axis not in self.axes)

    def to_canonical(self, array: Array) -> Array:
        """Drop the axes; numpy and jax raise where one is longer than 1."""
        return array.squeeze(axis=self.axes)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Reshape to the native shape."""
        return array.reshape(shape)


@dataclass(frozen=True)
class Shift:
    """Add a constant that a library adds in its code: `hk.LSTM` adds 1 to its forget gate.

    The sum is rounded, so a round trip changes an element by at most one ulp of the larger of the element and
    `offset`, and not at all if the element is a multiple of that ulp.
    """

    offset: float

    def __str__(self) -> str:
        return f"{self.offset:+g}"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """Return the shape unchanged."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Add the constant, in the array's own dtype."""
        return array + array.dtype.type(self.offset)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Subtract it."""
        return array - array.dtype.type(self.offset)


@dataclass(frozen=True)
class Scale:
    """Multiply by a constant that a library multiplies with in its code: a sign, or a `sqrt(1 + epsilon)`.

    Exact both ways for powers of two, of either sign, else each way rounds once. Only a sign commutes with an
    optimizer: a leaf that a library doubles has twice the gradient, so that a step of it has four times the effect.
    """

    factor: float

    def __str__(self) -> str:
        return f"times {self.factor:g}"

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """Return the shape unchanged."""
        return shape

    def to_canonical(self, array: Array) -> Array:
        """Multiply, in the array's own dtype."""
        return array * array.dtype.type(self.factor)

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Divide."""
        return array / array.dtype.type(self.factor)


@dataclass(frozen=True)
class Chain:
    """Several layouts in sequence; the first one is applied to the native array."""

    layouts: tuple[Layout, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.layouts))

    def canonical_shape(self, shape: ArrayShape) -> ArrayShape:
        """The shape after all layouts."""
        return self._shapes(shape)[-1]

    def _shapes(self, shape: ArrayShape) -> list[ArrayShape]:
        shapes = [shape]
        for layout in self.layouts:
            shapes.append(layout.canonical_shape(shapes[-1]))
        return shapes

    def to_canonical(self, array: Array) -> Array:
        """Apply the layouts in order."""
        for layout in self.layouts:
            array = layout.to_canonical(array)
        return array

    def to_native(self, array: Array, shape: ArrayShape) -> Array:
        """Apply the inverses in reverse order."""
        for layout, before in zip(reversed(self.layouts), reversed(self._shapes(shape)[:-1]), strict=True):
            array = layout.to_native(array, before)
        return array


SQUARES = ("nu", "nu_max", "sum_of_squares", "v", "v_row", "v_col")
"""What optax (0.2.8) calls the state in which it keeps squares or absolute values of gradients."""


def optimizer_layout(layout: Layout, role: str = "") -> Layout:
    """The layout of the optimizer state of a leaf, such as its momentum: without the constants of `Shift`.

    Args:
        layout: of the leaf.
        role: what the optimizer calls the state; squares of gradients have no sign.
    """
    if isinstance(layout, Shift):
        return Identity()
    if isinstance(layout, Scale):
        # A leaf that a library doubles has twice the gradient.
        return Scale(1 / layout.factor**2 if role in SQUARES else 1 / layout.factor)
    if isinstance(layout, Chain):
        return Chain(tuple(optimizer_layout(one, role) for one in layout.layouts))
    return layout
