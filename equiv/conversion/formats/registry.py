"""The checkpoint formats: find the format of a file, open it, write one. Adding one: its module, and its line here."""

import stat
from pathlib import Path

from equiv.conversion.formats.checkpoint import Checkpoint, CheckpointError, Format, OutgoingCheckpoint
from equiv.conversion.formats.msgpack import MSGPACK
from equiv.conversion.formats.npz import NPZ
from equiv.conversion.formats.orbax import ORBAX
from equiv.conversion.formats.pickle import PICKLE
from equiv.conversion.formats.safetensors import SAFETENSORS
from equiv.conversion.formats.shards import join_shards, shards_of

FORMATS: tuple[Format, ...] = (NPZ, SAFETENSORS, ORBAX, PICKLE, MSGPACK)
"""In the order in which they are tried: msgpack last, since it has no magic number."""

HEAD_BYTES = 16
"""First bytes of a file, by which formats recognise theirs."""

FOREIGN_MAGIC = {
    b"\x93NUMPY": "one array of numpy",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
"""First bytes of files that are often mistaken for a checkpoint."""


def format_for(file: Path, asked: str | None) -> Format:
    """The format to write: the requested one, else that of the suffix.

    Raises:
        CheckpointError: the format cannot be written.
    """
    suffix = file.suffix.lower()
    written = [format for format in FORMATS if format.write is not None]
    for format in written:
        if format.name == asked if asked else suffix in format.suffixes:
            return format
    raise CheckpointError(
        f"{file}: cannot write {asked or suffix.removeprefix('.')!r}.",
        fix=(
            "Pass --format with one of "
            f"{', '.join(format.name for format in written)}, or give a path with such a suffix."
        ),
    )


def write_checkpoint(file: Path, format: str, outgoing: OutgoingCheckpoint) -> None:
    """Write a checkpoint in the format of that name, leaf by leaf.

    Raises:
        CheckpointError: a leaf cannot be computed or written, or the format is only read.
    """
    writers = {known.name: known.write for known in FORMATS if known.write is not None}
    writers[format_for(file, format).name](file, outgoing)


def open_checkpoint(file: Path, allow_pickle: bool = False) -> Checkpoint:
    """Open a checkpoint of any format; no leaf is read yet, except that a pickle is loaded whole.

    Args:
        file: a file, one of the shards of a checkpoint, or the folder of an orbax checkpoint.
        allow_pickle: whether a pickle may be read; then only by an unpickler that creates nothing but arrays.

    Raises:
        CheckpointError: it does not exist, is no checkpoint, is truncated, or is a pickle without `allow_pickle`.
    """
    format = format_of(file)
    if format.can_run_code and not allow_pickle:
        raise CheckpointError(
            f"{file}: it is a {format.name}, which can run code.",
            fix=(
                "Pass --allow-pickle if you trust its origin; the restricted unpickler then creates nothing but arrays."
            ),
        )
    shards = () if format.is_folder else shards_of(file)
    if shards:
        return join_shards(file, [format.read(shard) for shard in shards])
    return format.read(file)


def format_of(file: Path) -> Format:
    """The format of a checkpoint, by its content where that is conclusive, else by its suffix.

    Raises:
        CheckpointError: it does not exist, is empty, neither a file nor a folder, or of an unsupported format.
    """
    try:
        kind = file.stat().st_mode
        if stat.S_ISDIR(kind):
            return next(format for format in FORMATS if format.is_folder)
        if not stat.S_ISREG(kind):
            raise CheckpointError(f"{file}: neither a file nor a folder.", fix="Give a checkpoint.")
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened: {error.strerror}.", fix="Give a checkpoint.") from error
    if not head:
        raise CheckpointError(f"{file}: it is empty.", fix="Give a checkpoint.")
    if found := next((name for begin, name in FOREIGN_MAGIC.items() if head.startswith(begin)), None):
        *names, last = (format.name for format in FORMATS)
        raise CheckpointError(f"{file}: it is {found}.", fix=f"Give {', '.join(names)} or {last}.")
    files = [format for format in FORMATS if not format.is_folder]
    recognised = [format for format in files if format.recognise(head)]
    by_suffix = [format for format in files if file.suffix.lower() in format.suffixes]
    return [*(format for format in recognised if format.conclusive), *by_suffix, *recognised][0]
