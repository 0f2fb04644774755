"""Packed leaves: several canonical leaves in one native leaf, side by side, such as the gates of an LSTM."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from equiv.core.layouts import Array, Region
from equiv.core.leaves import MappedLeaf
from equiv.errors import CaseError

Shape = tuple[int, ...]


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


@dataclass(frozen=True)
class Columns:
    """A run of the last axis: query, key and value side by side in one kernel, each with its bias below it.

    Attributes:
        start: its first index.
        stop: one past its last.
    """

    start: int
    stop: int

    def __str__(self) -> str:
        return f"columns {self.start} to {self.stop - 1}"

    def region(self, shape: Shape) -> Region:
        """Where it lies in a native leaf of that shape."""
        return (*((0, length) for length in shape[:-1]), (self.start, self.stop))


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
