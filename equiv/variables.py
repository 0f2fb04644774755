"""Nouns of the variables: what a leaf is, and how a library lays it out."""

from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
"""A numpy or jax array: this module touches neither, only methods both have."""

Region = tuple[tuple[int, int], ...]
"""A block of an array: first and one past the last index, for every axis."""


@dataclass(frozen=True)
class LeafSpec:
    """Shape, dtype name and collection (`params`, `state` or `random`) of one leaf."""

    shape: tuple[int, ...]
    dtype: str
    collection: str = "params"

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True, order=True)
class NativeKey:
    """A leaf's place in a library's own tree.

    `collection` is the library's own word for it (`params`, `state`, `batch_stats`).
    """

    collection: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.collection})"


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


@dataclass(frozen=True)
class Native:
    """How one library stores one canonical leaf of a layer kind.

    Attributes:
        collection: the library's collection.
        name: the leaf's path below the layer's scope.
        layout: from native to canonical.
        part: which block of the native leaf it is, where that holds several canonical ones.
        copies: for a leaf that only this library has: the canonical leaf that it repeats where nothing hangs on
            the library's own formula.
        constant: likewise, the integer that it holds there.
    """

    collection: str
    name: str
    layout: Layout = Identity()
    part: Part | None = None
    copies: str | None = None
    constant: int | None = None


@dataclass(frozen=True)
class MappedLeaf:
    """One native leaf, or a block of one, and the canonical leaf it is.

    Attributes:
        name: canonical name, `block.linear/kernel`.
        key: native place.
        layout: from native to canonical.
        spec: canonical shape, dtype and collection.
        native_shape: shape in the library.
        copies: see `Native.copies`, as a full canonical name.
        constant: see `Native.constant`.
        part: see `Native.part`.
        item: index on the first axis of a native leaf that is stacked over layers.
    """

    name: str
    key: NativeKey
    layout: Layout
    spec: LeafSpec
    native_shape: tuple[int, ...]
    copies: str | None = None
    constant: int | None = None
    part: Part | None = None
    item: int | None = None

    @property
    def own(self) -> bool:
        """Whether only this library has the leaf."""
        return self.copies is not None or self.constant is not None

    @property
    def region(self) -> Region | None:
        """The block of the native leaf; None: all of it."""
        if self.part is None and self.item is None:
            return None
        rest = self.native_shape if self.item is None else self.native_shape[1:]
        block = tuple((0, size) for size in rest) if self.part is None else self.part.region(rest)
        return block if self.item is None else ((self.item, self.item + 1), *block)

    @property
    def block_shape(self) -> tuple[int, ...]:
        """The shape that `layout` takes: of the block, without the axis of `item`."""
        if self.region is None:
            return self.native_shape
        return tuple(end - start for start, end in self.region[0 if self.item is None else 1 :])

    @property
    def rule(self) -> str:
        """How it lies in the native leaf, in words; empty: as it is."""
        words = [
            "" if self.item is None else f"layer {self.item} of a stack",
            "" if self.part is None else str(self.part),
            "" if self.layout == Identity() else str(self.layout),
        ]
        return ", ".join(filter(None, words))

    def to_canonical(self, array: Array) -> Array:
        """From the whole native leaf."""
        if self.region is not None:
            array = array[tuple(slice(*bounds) for bounds in self.region)].reshape(self.block_shape)
        return self.layout.to_canonical(array)

    def to_block(self, array: Array) -> Array:
        """To the block of the native leaf, which is all of it where `region` is None."""
        block = self.layout.to_native(array, self.block_shape)
        return block if self.region is None else block.reshape([end - start for start, end in self.region])


@dataclass(frozen=True)
class LeafTable:
    """The mapping of one port: every native leaf, each once."""

    backend: str
    leaves: tuple[MappedLeaf, ...]

    def __getitem__(self, name: str) -> MappedLeaf:
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def names(self, collection: str | None = None) -> tuple[str, ...]:
        """Canonical names, of one collection or of all."""
        return tuple(leaf.name for leaf in self.leaves if collection in (None, leaf.spec.collection))
