"""safetensors, through its library; the header is written here, since the library cannot write leaf by leaf."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, Leaf, bytes_of, guarded, size_of
from equiv.convert.formats.tree_paths import TreePath, shown
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
"""The format's names of dtypes to numpy's: those that the library reads into numpy (safetensors 0.8.0: no float8)."""


LONGEST = 100_000_000
"""Bytes of a header that the library takes (safetensors 0.8.0)."""


CODES = {name: code for code, name in DTYPES.items()}


def read(file: Path) -> Checkpoint:
    """Open a safetensors file; the library checks its header against its length.

    Raises:
        CheckpointError: no safetensors file, or not whole.
    """
    from safetensors import safe_open  # pyright: ignore[reportAttributeAccessIssue] - typed in some releases

    with guarded(file, "reading as safetensors"):
        # pread and not mmap: what is mapped counts as memory of this process for as long as the file is open.
        _check_names(file)
        opened = safe_open(file, framework="np", backend="pread")
        leaves: dict[TreePath, LeafSpec] = {}
        for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
            part = opened.get_slice(name)
            code = str(part.get_dtype())
            leaves[(name,)] = LeafSpec(tuple(part.get_shape()), DTYPES.get(code, code))

    def read_leaf(path: TreePath) -> np.ndarray:
        with guarded(file, f"reading leaf {shown(path)!r}"):
            return opened.get_tensor(path[0])

    return Checkpoint(file, "safetensors", leaves, read_leaf)


def _check_names(file: Path) -> None:
    """Raise where the header names a leaf twice, which the format forbids and the library does not see (0.8.0)."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise CheckpointError(f"two leaves are called {name!r}. Leave one out.")
            found[name] = value
        return found

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(file.stat().st_size, LONGEST) else b""
    if text:  # what is not whole, or no JSON, the library says better
        with suppress(ValueError):
            json.loads(text, object_pairs_hook=once)


def write(file: Path, leaves: Sequence[Leaf]) -> None:
    """Write leaf by leaf, the widest dtype first, so that every leaf is aligned."""
    with guarded(file, "writing safetensors"), file.open("xb") as stream:
        ordered = in_order(leaves)
        stream.write(header(ordered))
        for leaf in ordered:
            stream.write(bytes_of(leaf.make()))


def in_order(leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves as they lie in the file."""
    return sorted(leaves, key=lambda leaf: -_itemsize(leaf.spec))


def _itemsize(spec: LeafSpec) -> int:
    return size_of(LeafSpec((), spec.dtype))


def header(ordered: Sequence[Leaf]) -> bytes:
    """The file up to its first leaf: the length of a JSON object in eight bytes, and that object, padded with spaces.

    Raises:
        CheckpointError: a dtype that cannot be read again.
    """
    entries, end = {}, 0
    for leaf in ordered:
        if leaf.spec.dtype not in CODES:
            raise CheckpointError(
                f"leaf {shown(leaf.path)!r} is {leaf.spec}, which safetensors does not keep. Write another format."
            )
        start, end = end, end + size_of(leaf.spec)
        entries[shown(leaf.path)] = {
            "dtype": CODES[leaf.spec.dtype],
            "shape": list(leaf.spec.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
