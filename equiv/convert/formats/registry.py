"""A checkpoint on disk to an opened `Checkpoint`: which format it is, and whether it may be read at all."""

import importlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, Leaf
from equiv.convert.formats.tree_paths import Empty, TreePath

FORMATS = ("npz", "safetensors", "msgpack", "orbax")


@dataclass(frozen=True)
class Outgoing:
    """A checkpoint to be written.

    Attributes:
        leaves: its leaves.
        empties: nodes without leaves, which nested formats keep and flat ones cannot.
        tree: leaves by path to the library's own tree, as a user would save it with orbax.
    """

    leaves: Sequence[Leaf]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


def format_for(file: Path, asked: str | None) -> str:
    """The format that is asked for, or that the suffix says; a name without a suffix is a folder of orbax.

    Raises:
        CheckpointError: neither says one that can be written.
    """
    said = asked or (file.suffix.lower().removeprefix(".") or "orbax")
    if said not in FORMATS:
        raise CheckpointError(
            f"{file}: cannot write {said!r}. Say --format with one of {', '.join(FORMATS)}, or give a suffix of them."
        )
    return said


def write(file: Path, format: str, outgoing: Outgoing) -> None:
    """Write a checkpoint, leaf by leaf.

    Raises:
        CheckpointError: a leaf cannot be made or written.
    """
    module = importlib.import_module(f"equiv.convert.formats.{format}")
    if format == "orbax":
        module.write(file, outgoing.leaves, outgoing.tree)
    elif format == "msgpack":
        module.write(file, outgoing.leaves, outgoing.empties)
    else:
        module.write(file, outgoing.leaves)


ZIP, PICKLE = b"PK\x03\x04", b"\x80"


OTHERS = {
    b"\x93NUMPY": "one array of numpy",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "packed with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
}
"""What files begin with that are often taken for a checkpoint."""


SUFFIXES = {".npz": "npz", ".safetensors": "safetensors", ".msgpack": "msgpack", ".pkl": "pickle", ".pickle": "pickle"}


def open_checkpoint(file: Path, allow_pickle: bool = False) -> Checkpoint:
    """Open a checkpoint of any format; no leaf is read yet, but for a pickle, which is read whole.

    Args:
        file: a file, or the folder of an orbax checkpoint.
        allow_pickle: whether a pickle may be read; then only by an unpickler that makes nothing but arrays.

    Raises:
        CheckpointError: it does not exist, is no checkpoint, is not whole, or is a pickle that was not asked for.
    """
    format = format_of(file)
    if format == "pickle" and not allow_pickle:
        raise CheckpointError(
            f"{file}: it is a pickle, which is a program. Say --allow-pickle if you trust where it is from; "
            "all that it may do then is to make arrays."
        )
    return importlib.import_module(f"equiv.convert.formats.{format}").read(file)


def format_of(file: Path) -> str:
    """The format of a checkpoint, by its content where that shows it, else by its suffix.

    Raises:
        CheckpointError: nothing is there, it is empty, neither a file nor a folder, or of a format that is not read.
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
    if found := next((name for begin, name in OTHERS.items() if head.startswith(begin)), None):
        raise CheckpointError(
            f"{file}: it is {found}. Give npz (numpy.savez), safetensors, msgpack, a pickle or a folder of orbax."
        )
    if head.startswith(ZIP):
        return "npz"
    if head[8:9] == b"{":
        return "safetensors"
    suffix = SUFFIXES.get(file.suffix.lower())
    # A map of msgpack may begin with the byte of a pickle (0x80: a map without entries), a pickle never holds nothing.
    return suffix or ("pickle" if head.startswith(PICKLE) and len(head) > 1 else "msgpack")
