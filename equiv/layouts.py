"""Layouts beyond reshapes of one leaf: other axes, flips, constants, and the parts that a packed leaf is made of.

Axes count from the last, so that a leaf stacked over layers takes the same layout as a single one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from equiv.errors import CaseError
from equiv.variables import Array, Identity, Layout, MappedLeaf, Region

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


@dataclass(frozen=True)
class Gate:
    """One gate of a packed recurrent leaf: all gates side by side on the last axis, in the library's own order.

    Attributes:
        index: place of the gate among them.
        gates: how many there are.
        rows: `input` or `hidden` where one kernel takes both, the input's rows first (`hk.LSTM`); else empty.
    """

    index: int
    gates: int = 4
    rows: str = ""

    def __str__(self) -> str:
        return f"gate {self.index} of {self.gates}" + (f", rows of the {self.rows}" if self.rows else "")

    def region(self, shape: Shape) -> Region:
        """Where it lies in a native leaf of that shape."""
        size = shape[-1] // self.gates
        columns = (self.index * size, (self.index + 1) * size)
        if not self.rows:
            return (*((0, length) for length in shape[:-1]), columns)
        inputs = shape[-2] - size
        rows = (0, inputs) if self.rows == "input" else (inputs, shape[-2])
        return (*((0, length) for length in shape[:-2]), rows, columns)


def of_updates(layout: Layout) -> Layout:
    """The layout of what an optimizer keeps beside a leaf, such as its momentum: without numbers added."""
    if isinstance(layout, Shift):
        return Identity()
    return Chain(tuple(map(of_updates, layout.layouts))) if isinstance(layout, Chain) else layout


def to_native(leaves: Sequence[MappedLeaf], variables: Mapping[str, Array]) -> Array:
    """A native leaf from all that it holds.

    Args:
        leaves: all that it holds, checked by `check_regions`.
        variables: canonical name to array.
    """
    if leaves[0].region is None:
        return leaves[0].to_block(variables[leaves[0].name])
    return _join([(leaf.region or (), leaf.to_block(variables[leaf.name])) for leaf in leaves])


def _join(blocks: Sequence[tuple[Region, Array]], axis: int = 0) -> Array:
    """The array that blocks make up, joined from the last axis to the first."""
    if len(blocks) == 1:
        return blocks[0][1]
    starts = sorted({region[axis][0] for region, _ in blocks})
    along = [_join([block for block in blocks if block[0][axis][0] == start], axis + 1) for start in starts]
    return along[0] if len(along) == 1 else along[0].__array_namespace__().concat(along, axis=axis)


def check_regions(what: str, shape: Shape, regions: Sequence[Region]) -> None:
    """Every element of a leaf belongs to one part of it, and the parts can be joined axis by axis.

    Raises:
        CaseError: a gap, an overlap, or parts in no grid.
    """
    covered = sum(math.prod(end - start for start, end in region) for region in regions)
    size = math.prod(shape)
    if covered != size:
        raise CaseError(
            f"{what}: the rows cover {covered} of its {size} elements. Give every part of it one row, and no part two."
        )
    if not _tiles(tuple((0, length) for length in shape), list(regions)):
        raise CaseError(f"{what}: the rows that share it overlap. Give every part of it one row, and no part two.")


def _tiles(whole: Region, regions: list[Region], axis: int = 0) -> bool:
    """Whether regions can be joined to the whole, one axis after the other."""
    if axis == len(whole):
        return len(regions) == 1
    groups: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        groups.setdefault(region[axis], []).append(region)
    bounds = sorted(groups)
    edges = [whole[axis][0], *(end for _, end in bounds)]
    in_a_row = all(start == before for (start, _), before in zip(bounds, edges, strict=False))
    return (
        in_a_row
        and edges[-1] == whole[axis][1]
        and all(before < after for before, after in pairwise(edges))
        and all(_tiles(whole, group, axis + 1) for group in groups.values())
    )
