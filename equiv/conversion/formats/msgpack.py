"""msgpack as `flax.serialization` writes it, through msgpack's own library and without loading the whole file.

An array is an extension of type 1 (a numpy scalar: 3) that holds, packed once more, its shape, the name of its dtype
and its bytes (flax 0.12.8, `serialization.py`). One above a gibibyte is a map of flat chunks.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from equiv.conversion.formats.checkpoint import (
    TEXT,
    Checkpoint,
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    OutgoingLeaf,
    bytes_of,
    dtype_named,
    naming_checkpoint,
    size_of,
    spec_of,
)
from equiv.conversion.formats.tree_paths import (
    MAX_DEPTH,
    MAX_LEAVES,
    Empty,
    TreePath,
    children,
    flatten,
    nest,
    path_text,
)
from equiv.core.leaves import LeafSpec

NDARRAY, SCALAR = 1, 3

CHUNKED, CHUNK_BYTES = "__msgpack_chunked_array__", 2**30

MAX_HEADER_BYTES = 4096
"""Maximal bytes of a header, key or shape."""

FOUR_BYTE_LENGTH_FROM = 2**16
"""Size from which lengths have four bytes: an extension begins with C9, bytes with C6 (msgpack specification)."""

EXTENSIONS = {0xD4: 0, 0xD5: 0, 0xD6: 0, 0xD7: 0, 0xD8: 0, 0xC7: 1, 0xC8: 2, 0xC9: 4}
"""First byte of an extension to the bytes of its length (msgpack specification, "ext format family").

The library returns this length only after reading all the bytes.
"""


@dataclass(frozen=True)
class StoredArray:
    """An array in the file: its shape and dtype, and the offset of its bytes."""

    spec: LeafSpec
    start: int


Chunks = tuple[tuple[int, ...], tuple[StoredArray, ...]]
"""The shape of a chunked array, and its chunks."""


def read(file: Path) -> Checkpoint:
    """Open a msgpack file: only the bytes between the arrays are read.

    Raises:
        CheckpointError: not msgpack, truncated, or holding something that is no array.
    """
    with naming_checkpoint(file, "reading as msgpack"), file.open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tree, end = _MsgpackReader(data).value(0)
            if end != len(data):
                raise CheckpointError(f"extra data after the end, at byte {end} of {len(data)}.", fix="Save it again.")
        found = {path: leaf for path, leaf in flatten(tree, _children).items() if not isinstance(leaf, Empty)}
        leaves = {path: _stored_spec(path, leaf) for path, leaf in found.items()}

    def read_leaf(path: TreePath) -> np.ndarray:
        with naming_checkpoint(file, f"reading leaf {path_text(path)!r}"):
            return _read_value(file, found[path])

    return Checkpoint(file, "msgpack", leaves, read_leaf)


class _MsgpackReader:
    """Reads a file recursively: msgpack's library parses every header, and array data is skipped."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.entries = 0

    def value(self, at: int, depth: int = 0) -> tuple[Any, int]:
        """The value that begins at a byte, and the offset after it."""
        if depth > MAX_DEPTH:
            raise CheckpointError(f"nested more than {MAX_DEPTH} deep.", fix="Give the checkpoint of a model.")
        if at >= len(self.data):
            raise CheckpointError(f"the file is truncated at byte {at}.", fix="Save it again.")
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
        unpacker.feed(self.data[at : at + MAX_HEADER_BYTES])
        return unpacker

    def _items(self, at: int, depth: int, header: Any, item: Any) -> tuple[dict[str, Any], int]:
        unpacker = self._unpacker(at)
        count, found = header(unpacker), {}
        at += unpacker.tell()
        for index in range(count):
            self.entries += 1
            if self.entries > 2 * MAX_LEAVES:  # maps within maps count too
                raise CheckpointError(f"more than {2 * MAX_LEAVES} entries.", fix="Give the checkpoint of a model.")
            (key, value), at = item(index, at, depth + 1)
            if key in found:
                raise CheckpointError(f"two leaves are called {key!r} in one map.", fix="Leave one out.")
            found[key] = value
        return found, at

    def _pair(self, index: int, at: int, depth: int) -> tuple[tuple[str, Any], int]:
        key, at = self.value(at, depth)
        if not isinstance(key, str | int):
            raise CheckpointError(
                f"a key is {key!r}, expected text or an integer.", fix="Save it with flax.serialization."
            )
        value, at = self.value(at, depth)
        return (str(key), value), at

    def _indexed(self, index: int, at: int, depth: int) -> tuple[tuple[str, Any], int]:
        value, at = self.value(at, depth)
        return (str(index), value), at

    def _extension(self, at: int) -> tuple[StoredArray, int]:
        bytes_of_length = EXTENSIONS[self.data[at]]
        start = at + 2 + bytes_of_length
        counted = int.from_bytes(self.data[at + 1 : start - 1], "big")
        length = counted if bytes_of_length else 2 ** (self.data[at] - 0xD4)
        end = start + length
        if end > len(self.data):
            raise CheckpointError(
                f"the file is truncated at byte {len(self.data)}, inside a leaf.", fix="Save it again."
            )
        if (kind := self.data[start - 1]) not in (NDARRAY, SCALAR):
            raise CheckpointError(
                f"an extension of type {kind}, which is no array.", fix="Save it with flax.serialization."
            )
        unpacker = self._unpacker(start)
        parts = unpacker.read_array_header()
        spec = LeafSpec(tuple(unpacker.unpack()), unpacker.unpack())
        begin = end - size_of(spec)
        # Between the dtype's name and the bytes is a header of two, three or five bytes.
        if parts != 3 or begin - start - unpacker.tell() not in (2, 3, 5):
            raise CheckpointError(f"a leaf of {length} bytes is declared as {spec}.", fix="Save it again.")
        return StoredArray(spec, begin), end


def _children(node: Any) -> Any:
    return None if isinstance(node, dict) and CHUNKED in node else children(node)


def _chunks(node: dict[str, Any]) -> Chunks:
    shape, chunks = (tuple(node[name].values()) for name in ("shape", "chunks"))
    return shape, chunks


def _stored_spec(path: TreePath, leaf: Any) -> LeafSpec:
    if isinstance(leaf, StoredArray):
        return leaf.spec
    if isinstance(leaf, dict):
        shape, chunks = _chunks(leaf)
        spec = LeafSpec(shape, chunks[0].spec.dtype)
        if size_of(spec) != sum(size_of(chunk.spec) for chunk in chunks):
            raise CheckpointError(
                f"leaf {path_text(path)!r} is declared as {spec}, and its chunks have another size.",
                fix="Save it again.",
                leaf=path_text(path),
            )
        return spec
    if isinstance(leaf, bool | int | float):
        return spec_of(np.asarray(leaf))
    if isinstance(leaf, str):
        return TEXT
    raise CheckpointError(
        f"leaf {path_text(path)!r} is {str(leaf)[:40]!r}, which is no array.", fix="Leave it out.", leaf=path_text(path)
    )


def _read_value(file: Path, leaf: Any) -> np.ndarray:
    if isinstance(leaf, StoredArray):
        return _read_stored(file, leaf)
    if isinstance(leaf, dict):
        shape, chunks = _chunks(leaf)
        whole = np.empty(int(np.prod(shape)), dtype_named(chunks[0].spec.dtype))
        at = 0
        for chunk in chunks:
            part = _read_stored(file, chunk)
            whole[at : at + part.size] = part.reshape(-1)
            at += part.size
        return whole.reshape(shape)
    return np.asarray(leaf)


def _read_stored(file: Path, leaf: StoredArray) -> np.ndarray:
    array = np.fromfile(file, np.uint8, size_of(leaf.spec), offset=leaf.start)
    return array.view(dtype_named(leaf.spec.dtype)).reshape(leaf.spec.shape)


def write(file: Path, outgoing: OutgoingCheckpoint) -> None:
    """Write the same bytes as `flax.serialization.msgpack_serialize`, one leaf at a time."""
    packer = msgpack.Packer(strict_types=True)

    def parts(node: Any) -> Iterator[bytes | memoryview]:
        if node is None:
            yield packer.pack(None)
        elif not isinstance(node, OutgoingLeaf):
            yield packer.pack_map_header(len(node))
            for key, child in node.items():
                yield packer.pack(key)
                yield from parts(child)
        elif size_of(node.spec) > CHUNK_BYTES:
            yield from _pack_chunks(packer, node)
        else:
            yield from _pack_array(packer, node.make())

    whole = nest([*((leaf.path, leaf) for leaf in outgoing.leaves), *outgoing.empties.items()])
    with naming_checkpoint(file, "writing msgpack"), file.open("xb") as stream:
        for part in parts(whole):
            stream.write(part)


def _pack_array(packer: msgpack.Packer, array: np.ndarray) -> Iterator[bytes | memoryview]:
    data = bytes_of(array)
    if data.nbytes < FOUR_BYTE_LENGTH_FROM:
        yield packer.pack_ext_type(NDARRAY, msgpack.packb((array.shape, array.dtype.name, data)))
        return
    # The library would copy the bytes twice: into the extension, and once more into the outer buffer.
    plain = msgpack.Packer()  # the strict packer of the file accepts no tuples
    head = plain.pack_array_header(3) + plain.pack(array.shape) + plain.pack(array.dtype.name)
    head += b"\xc6" + data.nbytes.to_bytes(4, "big")
    yield b"\xc9" + (len(head) + data.nbytes).to_bytes(4, "big") + bytes((NDARRAY,)) + head
    yield data


def _pack_chunks(packer: msgpack.Packer, leaf: OutgoingLeaf) -> Iterator[bytes | memoryview]:
    flat = leaf.make().reshape(-1)
    step = max(1, CHUNK_BYTES // flat.dtype.itemsize)
    starts = range(0, flat.size, step)
    yield packer.pack_map_header(3)
    yield packer.pack(CHUNKED) + packer.pack(True)
    yield packer.pack("shape") + packer.pack({str(axis): size for axis, size in enumerate(leaf.spec.shape)})
    yield packer.pack("chunks") + packer.pack_map_header(len(starts))
    for index, start in enumerate(starts):
        yield packer.pack(str(index))
        yield from _pack_array(packer, flat[start : start + step])


# It has no magic number: a file that no other format recognises is read as this one.
MSGPACK = Format("msgpack", (".msgpack",), read, write, recognise=lambda _: True, conclusive=False)
