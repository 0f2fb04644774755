"""Nouns of the variables: what a leaf is, and how a library lays it out."""

from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
"""A numpy or jax array: this module touches neither, only methods both have."""


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
        copies: for a leaf that only this library has: the canonical leaf that it repeats where nothing hangs on
            the library's own formula.
        constant: likewise, the integer that it holds there.
    """

    collection: str
    name: str
    layout: Layout = Identity()
    copies: str | None = None
    constant: int | None = None


@dataclass(frozen=True)
class MappedLeaf:
    """One native leaf and the canonical leaf it is.

    Attributes:
        name: canonical name, `block.linear/kernel`.
        key: native place.
        layout: from native to canonical.
        spec: canonical shape, dtype and collection.
        native_shape: shape in the library.
        copies: see `Native.copies`, as a full canonical name.
        constant: see `Native.constant`.
    """

    name: str
    key: NativeKey
    layout: Layout
    spec: LeafSpec
    native_shape: tuple[int, ...]
    copies: str | None = None
    constant: int | None = None

    @property
    def own(self) -> bool:
        """Whether only this library has the leaf."""
        return self.copies is not None or self.constant is not None


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
