"""A native leaf of which some parts are held at values: its other parts become leaves of their own.

A port that packs query, key and value into one kernel may lack a counterpart of the value alone. To its programs the
kernel is then put together of what they are given and what is held, and what they return is split into the two again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Leaves, Port
from equiv.core.layouts import Array
from equiv.core.leaves import LeafTable, MappedLeaf, NativeKey
from equiv.core.packing import join_blocks


def own_leaf(leaf: MappedLeaf) -> MappedLeaf:
    """A part of a native leaf as a native leaf of its own, `qkv.kernel[0:4, 0:3]`."""
    key = replace(leaf.key, path=leaf.key.path + part_text(leaf))
    return replace(leaf, key=key, part=None, stack_index=None, native_shape=leaf.block_shape)


def part_text(leaf: MappedLeaf) -> str:
    """The place of a part in its native leaf, as numpy indexes it."""
    assert leaf.region is not None, "a part has a region"
    return f"[{', '.join(f'{start}:{stop}' for start, stop in leaf.region)}]"


@dataclass(frozen=True)
class PartlyHeld:
    """A native leaf of which some parts are held.

    Attributes:
        leaves: all its parts, in the order of the table.
        arrays: canonical name to what a part is held at, as its block of the native leaf.
    """

    leaves: tuple[MappedLeaf, ...]
    arrays: Mapping[str, np.ndarray]

    def structs(self, dtype: Any) -> dict[NativeKey, jax.ShapeDtypeStruct]:
        """The parts that are not held, as leaves of their own."""
        return {own_leaf(leaf).key: jax.ShapeDtypeStruct(leaf.block_shape, dtype) for leaf in self.free}

    @property
    def free(self) -> tuple[MappedLeaf, ...]:
        """The parts that are not held."""
        return tuple(leaf for leaf in self.leaves if leaf.name not in self.arrays)

    def take_apart(self, array: Array) -> list[Array]:
        """The blocks of a whole leaf, in the order of `leaves`."""
        return [leaf.take_block(array) for leaf in self.leaves]

    def split(self, array: Array) -> Leaves:
        """The parts of a whole leaf that are not held, by their own keys."""
        blocks = zip(self.leaves, self.take_apart(array), strict=True)
        return {own_leaf(leaf).key: block for leaf, block in blocks if leaf.name not in self.arrays}

    def join(self, blocks: Sequence[Array]) -> Array:
        """A whole leaf of its blocks, in the order of `leaves`."""
        whole = join_blocks(
            [
                (leaf.region or (), block.reshape([stop - start for start, stop in leaf.region or ()]))
                for leaf, block in zip(self.leaves, blocks, strict=True)
            ]
        )
        return whole.reshape(self.leaves[0].native_shape)

    def whole(self, native: Leaves, fill: Callable[[np.ndarray], Array]) -> Array:
        """A whole leaf of its free parts and what the others are held at.

        Args:
            native: the free parts, by their own keys.
            fill: makes an array of the program of what a part is held at.
        """
        return self.join(
            [
                fill(self.arrays[leaf.name]) if leaf.name in self.arrays else native[own_leaf(leaf).key]
                for leaf in self.leaves
            ]
        )


def find_partly_held(table: LeafTable) -> dict[NativeKey, tuple[MappedLeaf, ...]]:
    """The native leaves of which some parts are held and others are not, with all their parts."""
    parts: dict[NativeKey, list[MappedLeaf]] = {}
    for leaf in table.leaves:
        parts.setdefault(leaf.key, []).append(leaf)
    return {
        key: tuple(leaves)
        for key, leaves in parts.items()
        if any(leaf.held is not None and leaf.region is not None for leaf in leaves)
    }


def open_port(port: Port, held: Mapping[NativeKey, np.ndarray], parts: Mapping[NativeKey, PartlyHeld]) -> Port:
    """The leaves of a port without those that are held, the free parts of the others in their place."""
    leaves: dict[NativeKey, Any] = {}
    collections: dict[NativeKey, Any] = {}
    for key, struct in port.leaves.items():
        if key in held:
            continue
        own = parts[key].structs(struct.dtype) if key in parts else {key: struct}
        leaves |= own
        collections |= dict.fromkeys(own, port.collections[key])
    return replace(port, leaves=leaves, collections=collections)
