"""Packed leaves: one native leaf that contains several canonical ones, such as the gates of an LSTM."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from equiv.core.layouts import Array, ArrayShape, Region
from equiv.core.leaves import MappedLeaf
from equiv.errors import CaseError


@dataclass(frozen=True)
class Gate:
    """One gate of a packed recurrent leaf, whose gates are concatenated on the last axis in the library's order.

    Attributes:
        index: of the gate.
        gates: number of gates.
        rows: `input` or `hidden` if one kernel takes both, the input's rows first (`hk.LSTM`); else empty.
    """

    index: int
    gates: int = 4
    rows: str = ""

    def __str__(self) -> str:
        return f"gate {self.index} of {self.gates}" + (f", rows of the {self.rows}" if self.rows else "")

    @property
    def dropped_axes(self) -> tuple[int, ...]:
        """None."""
        return ()

    def grid(self, shape: ArrayShape) -> ArrayShape:
        """The shape in which `region` counts: that of the native leaf."""
        return shape

    def region(self, shape: ArrayShape) -> Region:
        """The block within a native leaf of the given shape."""
        size = shape[-1] // self.gates
        columns = (self.index * size, (self.index + 1) * size)
        if not self.rows:
            return (*((0, length) for length in shape[:-1]), columns)
        inputs = shape[-2] - size
        rows = (0, inputs) if self.rows == "input" else (inputs, shape[-2])
        return (*((0, length) for length in shape[:-2]), rows, columns)


@dataclass(frozen=True)
class Columns:
    """A slice of the last axis, such as the query in a kernel that concatenates query, key and value.

    Attributes:
        start: first index.
        stop: one past the last index.
        period: after how many columns they recur, as where query, key and value alternate head by head; 0: they do not.
    """

    start: int
    stop: int
    period: int = 0

    def __str__(self) -> str:
        return f"columns {self.start} to {self.stop - 1}" + (f" of every {self.period}" if self.period else "")

    @property
    def dropped_axes(self) -> tuple[int, ...]:
        """None."""
        return ()

    def grid(self, shape: ArrayShape) -> ArrayShape:
        """The shape in which `region` counts: with columns that recur the last axis is two, `(4, 96)` `(4, 4, 24)`."""
        return (*shape[:-1], shape[-1] // self.period, self.period) if self.period else shape

    def region(self, shape: ArrayShape) -> Region:
        """The block within a native leaf of the given shape."""
        return (*((0, length) for length in self.grid(shape)[:-1]), (self.start, self.stop))


@dataclass(frozen=True)
class Block:
    """A slice of any axes, as numpy takes it: `[0:8]` are the first rows, `[:, 1]` has one axis less.

    Attributes:
        items: for each of the first axes (start, stop); an index, whose axis is dropped; or None for the whole axis.
    """

    items: tuple[tuple[int, int] | int | None, ...]

    def __str__(self) -> str:
        words = [
            ":" if item is None else str(item) if isinstance(item, int) else f"{item[0]}:{item[1]}"
            for item in self.items
        ]
        return f"[{', '.join(words)}]"

    @property
    def dropped_axes(self) -> tuple[int, ...]:
        """Those with an index."""
        return tuple(axis for axis, item in enumerate(self.items) if isinstance(item, int))

    def grid(self, shape: ArrayShape) -> ArrayShape:
        """The shape in which `region` counts: that of the native leaf."""
        return shape

    def region(self, shape: ArrayShape) -> Region:
        """The block within a native leaf of the given shape, which has at least as many axes as there are items."""
        rest = (None,) * (len(shape) - len(self.items))
        return tuple(
            (0, size) if item is None else (item, item + 1) if isinstance(item, int) else item
            for item, size in zip((*self.items, *rest), shape, strict=True)
        )


def assemble_native_leaf(leaves: Sequence[MappedLeaf], variables: Mapping[str, Array]) -> Array:
    """Assemble a native leaf from its canonical leaves.

    Args:
        leaves: all leaves that it contains, checked by `check_regions`.
        variables: canonical name to array.
    """
    if leaves[0].region is None:
        return leaves[0].to_block(variables[leaves[0].name])
    whole = join_blocks([(leaf.region or (), leaf.to_block(variables[leaf.name])) for leaf in leaves])
    return whole if leaves[0].grid == leaves[0].native_shape else whole.reshape(leaves[0].native_shape)


def join_blocks(blocks: Sequence[tuple[Region, Array]], axis: int = 0) -> Array:
    """Concatenate blocks to one array, from the last axis to the first."""
    if len(blocks) == 1:
        return blocks[0][1]
    at_start: dict[int, list[tuple[Region, Array]]] = {}
    for block in blocks:
        at_start.setdefault(block[0][axis][0], []).append(block)
    along = [join_blocks(at_start[start], axis + 1) for start in sorted(at_start)]
    return along[0] if len(along) == 1 else along[0].__array_namespace__().concat(along, axis=axis)


def check_regions(leaf: str, shape: ArrayShape, regions: Sequence[Region]) -> None:
    """Check that regions cover every element of a leaf once, and that they can be concatenated axis by axis.

    Raises:
        CaseError: there is a gap or an overlap, or the regions do not form a grid.
    """
    covered = sum(math.prod(end - start for start, end in region) for region in regions)
    size = math.prod(shape)
    if covered != size:
        raise CaseError(
            f"{leaf}: the rows cover {covered} of its {size} elements.",
            fix="Give every part of it exactly one row.",
            leaf=leaf,
        )
    if not _is_grid(tuple((0, length) for length in shape), list(regions)):
        raise CaseError(
            f"{leaf}: the rows that share it overlap.", fix="Give every part of it exactly one row.", leaf=leaf
        )


def _is_grid(whole: Region, regions: list[Region], axis: int = 0) -> bool:
    """Whether regions can be concatenated to the whole, one axis after the other."""
    if axis == len(whole):
        return len(regions) == 1
    groups: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        groups.setdefault(region[axis], []).append(region)
    bounds = sorted(groups)
    edges = [whole[axis][0], *(end for _, end in bounds)]
    contiguous = all(start == before for (start, _), before in zip(bounds, edges, strict=False))
    return (
        contiguous
        and edges[-1] == whole[axis][1]
        and all(before < after for before, after in pairwise(edges))
        and all(_is_grid(whole, group, axis + 1) for group in groups.values())
    )
