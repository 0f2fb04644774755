"""Nouns of the variables: what a leaf is, and how a library lays it out."""

from dataclasses import dataclass

from equiv.core.layouts import Array, Identity, Layout, Part, Region


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
