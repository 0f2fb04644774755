"""safetensors, through its library; the header is written here, since the library cannot write one leaf at a time."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from equiv.conversion.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    OutgoingLeaf,
    bytes_of,
    naming_checkpoint,
    size_of,
)
from equiv.conversion.formats.tree_paths import TreePath, path_text
from equiv.core.leaves import LeafSpec

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
"""dtype names of the format to numpy's: those that the library reads into numpy (safetensors 0.8.0: no float8)."""

JSON_HEADER_BYTES = 100_000_000
"""Maximal bytes of a header that the library accepts (safetensors 0.8.0)."""

CODES = {name: code for code, name in DTYPES.items()}


def read(file: Path) -> Checkpoint:
    """Open a safetensors file; the library checks its header against its length.

    Raises:
        CheckpointError: not a safetensors file, or truncated.
    """
    from safetensors import safe_open  # pyright: ignore[reportAttributeAccessIssue] - typed in some releases

    with naming_checkpoint(file, "reading as safetensors"):
        # pread and not mmap: mapped pages count as memory of this process for as long as the file is open.
        _check_names(file)
        opened = safe_open(file, framework="np", backend="pread")
        leaves: dict[TreePath, LeafSpec] = {}
        for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
            part = opened.get_slice(name)
            code = str(part.get_dtype())
            leaves[(name,)] = LeafSpec(tuple(part.get_shape()), DTYPES.get(code, code))

    def read_leaf(path: TreePath) -> np.ndarray:
        with naming_checkpoint(file, f"reading leaf {path_text(path)!r}"):
            return opened.get_tensor(path[0])

    return Checkpoint(file, "safetensors", leaves, read_leaf)


def _check_names(file: Path) -> None:
    """Raise where the header has duplicate names, which the format forbids and the library does not check (0.8.0)."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise CheckpointError(f"two leaves are called {name!r}.", fix="Leave one out.")
            found[name] = value
        return found

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(file.stat().st_size, JSON_HEADER_BYTES) else b""
    if text:  # a truncated header or invalid JSON is reported by the library
        with suppress(ValueError):
            json.loads(text, object_pairs_hook=once)


def write(file: Path, outgoing: OutgoingCheckpoint) -> None:
    """Write leaf by leaf, the largest item size first, so that every leaf is aligned."""
    with naming_checkpoint(file, "writing safetensors"), file.open("xb") as stream:
        ordered = in_file_order(outgoing.leaves)
        stream.write(header(ordered))
        for leaf in ordered:
            stream.write(bytes_of(leaf.make()))


def in_file_order(leaves: Sequence[OutgoingLeaf]) -> list[OutgoingLeaf]:
    """The leaves in the order of the file."""
    return sorted(leaves, key=lambda leaf: -_itemsize(leaf.spec))


def _itemsize(spec: LeafSpec) -> int:
    return size_of(LeafSpec((), spec.dtype))


def header(ordered: Sequence[OutgoingLeaf]) -> bytes:
    """The bytes before the first leaf: the length of a JSON object in eight bytes, and the object, padded with spaces.

    Raises:
        CheckpointError: a dtype that cannot be read back.
    """
    entries, end = {}, 0
    for leaf in ordered:
        if leaf.spec.dtype not in CODES:
            raise CheckpointError(
                f"leaf {path_text(leaf.path)!r} is {leaf.spec}, which safetensors does not support.",
                fix="Use another format.",
                leaf=path_text(leaf.path),
            )
        start, end = end, end + size_of(leaf.spec)
        entries[path_text(leaf.path)] = {
            "dtype": CODES[leaf.spec.dtype],
            "shape": list(leaf.spec.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


# The length of the header has eight bytes; then it begins.
SAFETENSORS = Format("safetensors", (".safetensors",), read, write, recognise=lambda head: head[8:9] == b"{")
