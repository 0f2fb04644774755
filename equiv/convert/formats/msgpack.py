"""msgpack as `flax.serialization` writes it, through msgpack's own library and without loading the file whole.

An array is an extension of type 1 (a numpy scalar: 3) that holds, packed once more, its shape, the name of its dtype
and its bytes (flax 0.12.8, `serialization.py`). One above a gibibyte is a map of flat chunks.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from equiv.convert.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Leaf,
    bytes_of,
    dtype_of,
    guarded,
    size_of,
    spec_of,
)
from equiv.convert.formats.tree_paths import DEEPEST, MOST, Empty, TreePath, children, flatten, nested, shown
from equiv.core.leaves import LeafSpec

NDARRAY, SCALAR = 1, 3


CHUNKED, CHUNK = "__msgpack_chunked_array__", 2**30


HEADS = 4096
"""Bytes in which every header, key and shape has to end."""


LARGE = 2**16
"""Bytes from which on lengths have four bytes: an extension begins with C9, bytes with C6 (msgpack specification)."""


EXTENSIONS = {0xD4: 0, 0xD5: 0, 0xD6: 0, 0xD7: 0, 0xD8: 0, 0xC7: 1, 0xC8: 2, 0xC9: 4}
"""First byte of an extension to the bytes of its length (msgpack specification, "ext format family").

The library tells this length only after reading all that it counts.
"""


@dataclass(frozen=True)
class Stored:
    """An array in the file: its shape and dtype, and where its bytes begin."""

    spec: LeafSpec
    start: int


Chunks = tuple[tuple[int, ...], tuple[Stored, ...]]
"""The shape of an array in chunks, and those."""


def read(file: Path) -> Checkpoint:
    """Open a msgpack file: only what lies between the arrays is read.

    Raises:
        CheckpointError: no msgpack, not whole, or holding something that is no array.
    """
    with guarded(file, "reading as msgpack"), file.open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tree, end = _Reader(data).value(0)
            if end != len(data):
                raise CheckpointError(f"it goes on after its end, at byte {end} of {len(data)}. Save it again.")
        found = {path: leaf for path, leaf in flatten(tree, _children).items() if not isinstance(leaf, Empty)}
        leaves = {path: _spec(path, leaf) for path, leaf in found.items()}

    def read_leaf(path: TreePath) -> np.ndarray:
        with guarded(file, f"reading leaf {shown(path)!r}"):
            return _read_leaf(file, found[path])

    return Checkpoint(file, "msgpack", leaves, read_leaf)


class _Reader:
    """A walk over a file: msgpack's library reads every header, and arrays are passed over."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.entries = 0

    def value(self, at: int, depth: int = 0) -> tuple[Any, int]:
        """What begins at a byte, and the byte after it."""
        if depth > DEEPEST:
            raise CheckpointError(f"nested more than {DEEPEST} deep. Give the checkpoint of a model.")
        if at >= len(self.data):
            raise CheckpointError(f"it ends at byte {at}, in the middle. Save it again.")
        first = self.data[at]
        if 0x80 <= first < 0x90 or first in (0xDE, 0xDF):
            return self._items(at, depth, msgpack.Unpacker.read_map_header, self._pair)
        if 0x90 <= first < 0xA0 or first in (0xDC, 0xDD):
            return self._items(at, depth, msgpack.Unpacker.read_array_header, self._indexed)
        if first in EXTENSIONS:
            return self._extension(at)
        unpacker = self._unpacker(at)
        return unpacker.unpack(), at + unpacker.tell()

    def _unpacker(self, at: int) -> msgpack.Unpacker:
        unpacker = msgpack.Unpacker(strict_map_key=False)
        unpacker.feed(self.data[at : at + HEADS])
        return unpacker

    def _items(self, at: int, depth: int, header: Any, item: Any) -> tuple[dict[str, Any], int]:
        unpacker = self._unpacker(at)
        count, found = header(unpacker), {}
        at += unpacker.tell()
        for index in range(count):
            self.entries += 1
            if self.entries > 2 * MOST:  # maps within maps count too
                raise CheckpointError(f"more than {2 * MOST} entries. Give the checkpoint of a model.")
            (key, value), at = item(index, at, depth + 1)
            if key in found:
                raise CheckpointError(f"two leaves are called {key!r} in one map. Leave one out.")
            found[key] = value
        return found, at

    def _pair(self, index: int, at: int, depth: int) -> tuple[tuple[str, Any], int]:
        key, at = self.value(at, depth)
        if not isinstance(key, str | int):
            raise CheckpointError(f"a key is {key!r}, wanted text or a number. Save it with flax.serialization.")
        value, at = self.value(at, depth)
        return (str(key), value), at

    def _indexed(self, index: int, at: int, depth: int) -> tuple[tuple[str, Any], int]:
        value, at = self.value(at, depth)
        return (str(index), value), at

    def _extension(self, at: int) -> tuple[Stored, int]:
        bytes_of_length = EXTENSIONS[self.data[at]]
        start = at + 2 + bytes_of_length
        counted = int.from_bytes(self.data[at + 1 : start - 1], "big")
        length = counted if bytes_of_length else 2 ** (self.data[at] - 0xD4)
        end = start + length
        if end > len(self.data):
            raise CheckpointError(f"it ends at byte {len(self.data)}, in the middle of a leaf. Save it again.")
        if (kind := self.data[start - 1]) not in (NDARRAY, SCALAR):
            raise CheckpointError(f"an extension of type {kind}, which is no array. Save it with flax.serialization.")
        unpacker = self._unpacker(start)
        parts = unpacker.read_array_header()
        spec = LeafSpec(tuple(unpacker.unpack()), unpacker.unpack())
        begin = end - size_of(spec)
        # Between the dtype's name and the bytes stands a header of two, three or five bytes.
        if parts != 3 or begin - start - unpacker.tell() not in (2, 3, 5):
            raise CheckpointError(f"a leaf of {length} bytes says that it is {spec}. Save it again.")
        return Stored(spec, begin), end


def _children(node: Any) -> Any:
    return None if isinstance(node, dict) and CHUNKED in node else children(node)


def _chunks(node: dict[str, Any]) -> Chunks:
    shape, chunks = (tuple(node[name].values()) for name in ("shape", "chunks"))
    return shape, chunks


def _spec(path: TreePath, leaf: Any) -> LeafSpec:
    if isinstance(leaf, Stored):
        return leaf.spec
    if isinstance(leaf, dict):
        shape, chunks = _chunks(leaf)
        spec = LeafSpec(shape, chunks[0].spec.dtype)
        if size_of(spec) != sum(size_of(chunk.spec) for chunk in chunks):
            raise CheckpointError(f"leaf {shown(path)!r} says that it is {spec}, and has other chunks. Save it again.")
        return spec
    if isinstance(leaf, bool | int | float):
        return spec_of(np.asarray(leaf))
    raise CheckpointError(f"leaf {shown(path)!r} is {str(leaf)[:40]!r}, which is no array. Leave it out.")


def _read_leaf(file: Path, leaf: Any) -> np.ndarray:
    if isinstance(leaf, Stored):
        return _read_stored(file, leaf)
    if isinstance(leaf, dict):
        shape, chunks = _chunks(leaf)
        whole = np.empty(int(np.prod(shape)), dtype_of(chunks[0].spec.dtype))
        at = 0
        for chunk in chunks:
            part = _read_stored(file, chunk)
            whole[at : at + part.size] = part.reshape(-1)
            at += part.size
        return whole.reshape(shape)
    return np.asarray(leaf)


def _read_stored(file: Path, leaf: Stored) -> np.ndarray:
    array = np.fromfile(file, np.uint8, size_of(leaf.spec), offset=leaf.start)
    return array.view(dtype_of(leaf.spec.dtype)).reshape(leaf.spec.shape)


def write(file: Path, leaves: Sequence[Leaf], empties: Mapping[TreePath, Empty]) -> None:
    """Write what `flax.serialization.msgpack_serialize` would, a leaf at a time."""
    packer = msgpack.Packer(strict_types=True)

    def parts(node: Any) -> Iterator[bytes | memoryview]:
        if node is None:
            yield packer.pack(None)
        elif not isinstance(node, Leaf):
            yield packer.pack_map_header(len(node))
            for key, child in node.items():
                yield packer.pack(key)
                yield from parts(child)
        elif size_of(node.spec) > CHUNK:
            yield from _chunked(packer, node)
        else:
            yield from _packed(packer, node.make())

    whole = nested([*((leaf.path, leaf) for leaf in leaves), *empties.items()])
    with guarded(file, "writing msgpack"), file.open("xb") as stream:
        for part in parts(whole):
            stream.write(part)


def _packed(packer: msgpack.Packer, array: np.ndarray) -> Iterator[bytes | memoryview]:
    data = bytes_of(array)
    if data.nbytes < LARGE:
        yield packer.pack_ext_type(NDARRAY, msgpack.packb((array.shape, array.dtype.name, data)))
        return
    # The library would copy the bytes twice: once into the extension, once more around it.
    plain = msgpack.Packer()  # the one for the file takes no tuples
    head = plain.pack_array_header(3) + plain.pack(array.shape) + plain.pack(array.dtype.name)
    head += b"\xc6" + data.nbytes.to_bytes(4, "big")
    yield b"\xc9" + (len(head) + data.nbytes).to_bytes(4, "big") + bytes((NDARRAY,)) + head
    yield data


def _chunked(packer: msgpack.Packer, leaf: Leaf) -> Iterator[bytes | memoryview]:
    flat = leaf.make().reshape(-1)
    step = max(1, CHUNK // flat.dtype.itemsize)
    starts = range(0, flat.size, step)
    yield packer.pack_map_header(3)
    yield packer.pack(CHUNKED) + packer.pack(True)
    yield packer.pack("shape") + packer.pack({str(axis): size for axis, size in enumerate(leaf.spec.shape)})
    yield packer.pack("chunks") + packer.pack_map_header(len(starts))
    for index, start in enumerate(starts):
        yield packer.pack(str(index))
        yield from _packed(packer, flat[start : start + step])
