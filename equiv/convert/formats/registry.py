"""The checkpoint formats: detect the format of a file, open it, write one."""

import importlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, OutgoingLeaf
from equiv.convert.formats.tree_paths import Empty, TreePath

FORMATS = ("npz", "safetensors", "msgpack", "orbax")


@dataclass(frozen=True)
class OutgoingCheckpoint:
    """A checkpoint to be written.

    Attributes:
        leaves: its leaves.
        empties: nodes without leaves, which only nested formats can store.
        tree: maps leaves by path to the library's own tree, as a user would save it with orbax.
    """

    leaves: Sequence[OutgoingLeaf]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


def format_for(file: Path, asked: str | None) -> str:
    """The requested format, else that of the suffix; a name without a suffix is an orbax folder.

    Raises:
        CheckpointError: the format cannot be written.
    """
    format = asked or (file.suffix.lower().removeprefix(".") or "orbax")
    if format not in FORMATS:
        raise CheckpointError(
            f"{file}: cannot write {format!r}. Pass --format with one of {', '.join(FORMATS)}"
            ", or give a path with such a suffix."
        )
    return format


def write_checkpoint(file: Path, format: str, outgoing: OutgoingCheckpoint) -> None:
    """Write a checkpoint, leaf by leaf.

    Raises:
        CheckpointError: a leaf cannot be computed or written.
    """
    module = importlib.import_module(f"equiv.convert.formats.{format}")
    if format == "orbax":
        module.write(file, outgoing.leaves, outgoing.tree)
    elif format == "msgpack":
        module.write(file, outgoing.leaves, outgoing.empties)
    else:
        module.write(file, outgoing.leaves)


ZIP, PICKLE = b"PK\x03\x04", b"\x80"

FOREIGN_MAGIC = {
    b"\x93NUMPY": "one array of numpy",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
"""First bytes of files that are often mistaken for a checkpoint."""

FORMAT_BY_SUFFIX = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".msgpack": "msgpack",
    ".pkl": "pickle",
    ".pickle": "pickle",
}


def open_checkpoint(file: Path, allow_pickle: bool = False) -> Checkpoint:
    """Open a checkpoint of any format; no leaf is read yet, except that a pickle is loaded whole.

    Args:
        file: a file, or the folder of an orbax checkpoint.
        allow_pickle: whether a pickle may be read; then only by an unpickler that creates nothing but arrays.

    Raises:
        CheckpointError: it does not exist, is no checkpoint, is truncated, or is a pickle without `allow_pickle`.
    """
    format = format_of(file)
    if format == "pickle" and not allow_pickle:
        raise CheckpointError(
            f"{file}: it is a pickle, which can run code. Pass --allow-pickle if you trust its origin; "
            "the restricted unpickler then creates nothing but arrays."
        )
    return importlib.import_module(f"equiv.convert.formats.{format}").read(file)


def format_of(file: Path) -> str:
    """The format of a checkpoint, by its content where that is conclusive, else by its suffix.

    Raises:
        CheckpointError: it does not exist, is empty, neither a file nor a folder, or of an unsupported format.
    """
    try:
        kind = file.stat().st_mode
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened: {error.strerror}. Give a checkpoint.") from error
    if stat.S_ISDIR(kind):
        return "orbax"
    if not stat.S_ISREG(kind):
        raise CheckpointError(f"{file}: neither a file nor a folder. Give a checkpoint.")
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened: {error.strerror}. Give a checkpoint.") from error
    if not head:
        raise CheckpointError(f"{file}: it is empty. Give a checkpoint.")
    if found := next((name for begin, name in FOREIGN_MAGIC.items() if head.startswith(begin)), None):
        raise CheckpointError(
            f"{file}: it is {found}. Give npz (numpy.savez), safetensors, msgpack, a pickle or a folder of orbax."
        )
    if head.startswith(ZIP):
        return "npz"
    if head[8:9] == b"{":
        return "safetensors"
    suffix = FORMAT_BY_SUFFIX.get(file.suffix.lower())
    # msgpack may begin with the byte of a pickle too (0x80: an empty map), but a pickle is longer than one byte.
    return suffix or ("pickle" if head.startswith(PICKLE) and len(head) > 1 else "msgpack")
