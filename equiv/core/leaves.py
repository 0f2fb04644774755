"""Leaves: the canonical variables of a model, and how each library stores them."""

from dataclasses import dataclass, field
from typing import Literal

from equiv.core.annotation import Annotation
from equiv.core.layouts import Array, Identity, Layout, Part, Region

HeldValue = float | Literal["initial"]
"""What a leaf that only one port has is held at: a number, or what its library initialises it to."""


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
    """The path of a leaf in a library's own tree.

    `collection` is the library's own collection name (`params`, `state`, `batch_stats`).
    """

    collection: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.collection})"


@dataclass(frozen=True)
class NativeLeaf:
    """How one library stores one canonical leaf of a layer kind.

    Attributes:
        collection: the library's collection.
        name: the leaf's path below the layer's scope.
        layout: from native to canonical.
        part: its block of the native leaf, if the native leaf contains several canonical ones.
        mirrors: for a library-only leaf: the canonical leaf whose value it is given, such that the library's extra
            state does not change any output.
        fixed_value: for a library-only leaf: the integer that it is given to the same end.
    """

    collection: str
    name: str
    layout: Layout = field(default_factory=Identity)
    part: Part | None = None
    mirrors: str | None = None
    fixed_value: int | None = None


@dataclass(frozen=True)
class MappedLeaf:
    """One canonical leaf, and the native leaf (or block of one) that stores it.

    Attributes:
        name: canonical name, `block.linear/kernel`.
        key: where the library stores it.
        layout: from native to canonical.
        spec: canonical shape, dtype and collection.
        native_shape: shape in the library.
        mirrors: see `NativeLeaf.mirrors`, as a full canonical name.
        fixed_value: see `NativeLeaf.fixed_value`.
        part: see `NativeLeaf.part`.
        stack_index: its index on the first axis, if the native leaf is stacked over layers.
        held: what it is held at, as another port lacks it; None: it is not.
        annotation: what the library keeps of the sharding of the native leaf; None: nothing.
    """

    name: str
    key: NativeKey
    layout: Layout
    spec: LeafSpec
    native_shape: tuple[int, ...]
    mirrors: str | None = None
    fixed_value: int | None = None
    part: Part | None = None
    stack_index: int | None = None
    held: HeldValue | None = None
    annotation: Annotation | None = None

    @property
    def library_only(self) -> bool:
        """Whether only this library has the leaf."""
        return self.mirrors is not None or self.fixed_value is not None

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape in which `region` counts: the native shape, but for columns that recur."""
        if self.part is None:
            return self.native_shape
        first = 0 if self.stack_index is None else 1
        return (*self.native_shape[:first], *self.part.grid(self.native_shape[first:]))

    @property
    def region(self) -> Region | None:
        """Its block of the native leaf, reshaped to `grid`; None: the whole leaf."""
        if self.part is None and self.stack_index is None:
            return None
        rest = self.native_shape if self.stack_index is None else self.native_shape[1:]
        block = tuple((0, size) for size in rest) if self.part is None else self.part.region(rest)
        return block if self.stack_index is None else ((self.stack_index, self.stack_index + 1), *block)

    @property
    def block_shape(self) -> tuple[int, ...]:
        """The shape that `layout` takes: that of the block, without the axes of which it has one index."""
        if self.region is None:
            return self.native_shape
        sizes = [end - start for start, end in self.region]
        if self.grid != self.native_shape:
            sizes[-2:] = [sizes[-2] * sizes[-1]]  # columns that recur are an axis of the block
        return tuple(size for axis, size in enumerate(sizes) if axis not in self.dropped_axes)

    @property
    def dropped_axes(self) -> tuple[int, ...]:
        """Axes of the native leaf of which one index is taken."""
        first = 0 if self.stack_index is None else 1
        own = () if self.part is None else tuple(axis + first for axis in self.part.dropped_axes)
        return own if self.stack_index is None else (0, *own)

    @property
    def storage_description(self) -> str:
        """How the native leaf stores it, in words; empty: unchanged."""
        words = [
            "" if self.stack_index is None else f"layer {self.stack_index} of a stack",
            "" if self.part is None else str(self.part),
            "" if self.layout == Identity() else str(self.layout),
        ]
        return ", ".join(filter(None, words))

    def to_canonical(self, array: Array) -> Array:
        """Extract the canonical array from the whole native leaf."""
        return self.layout.to_canonical(self.take_block(array))

    def take_block(self, array: Array) -> Array:
        """Its block of the whole native leaf, as `layout` takes it."""
        if self.region is None:
            return array
        if self.grid != self.native_shape:
            array = array.reshape(self.grid)
        return array[tuple(slice(*bounds) for bounds in self.region)].reshape(self.block_shape)

    def to_block(self, array: Array) -> Array:
        """Convert a canonical array to its block of the native leaf (the whole leaf if `region` is None)."""
        block = self.layout.to_native(array, self.block_shape)
        return block if self.region is None else block.reshape([end - start for start, end in self.region])


@dataclass(frozen=True)
class LeafTable:
    """The mapping between the native and canonical leaves of one port; every native leaf is in it once.

    Attributes:
        port: name of the port.
        leaves: every leaf.
        library: name of the port's library; empty: that of the port.
    """

    port: str
    leaves: tuple[MappedLeaf, ...]
    library: str = ""

    def __getitem__(self, name: str) -> MappedLeaf:
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def names(self, collection: str | None = None) -> tuple[str, ...]:
        """The canonical names in one collection, or in all."""
        return tuple(leaf.name for leaf in self.leaves if collection in (None, leaf.spec.collection))


def unmatched_leaves(left: LeafTable, right: LeafTable) -> tuple[tuple[str, MappedLeaf], ...]:
    """Port and leaf, of the leaves that one of two ports has and the other lacks, though its library could have it."""
    names = set(left.names()), set(right.names())
    return tuple(
        (table.port, leaf)
        for table, others in zip((left, right), names[::-1], strict=True)
        for leaf in table.leaves
        if not leaf.library_only and leaf.name not in others
    )


def one_sided_leaves(left: LeafTable, right: LeafTable) -> dict[str, MappedLeaf]:
    """Canonical name to leaf, of the library-only leaves that one of two ports has and the other has not."""
    names = set(left.names()), set(right.names())
    sides = zip((left, right), names[::-1], strict=True)
    return {
        leaf.name: leaf
        for table, others in sides
        for leaf in table.leaves
        if leaf.library_only and leaf.name not in others
    }
