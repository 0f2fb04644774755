"""npz, through numpy and zipfile: flat names, and only numpy's own dtypes."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from equiv.conversion.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    OutgoingLeaf,
    dtype_named,
    naming_checkpoint,
)
from equiv.conversion.formats.tree_paths import MAX_LEAVES, TreePath, path_text
from equiv.core.leaves import LeafSpec

HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

NPY_HEADER_BYTES = 12_000
"""Maximal bytes of a header: numpy accepts 10,000 (numpy 2.4.6), but first reads as many as the file declares."""


def read(file: Path) -> Checkpoint:
    """Open an npz file.

    numpy writes bfloat16 as two untyped bytes (`|V2`, numpy 2.4.6), and no other dtype of JAX: it is read as bfloat16.
    One untyped byte may be any of several small floats, and is not converted.

    Raises:
        CheckpointError: not an npz file, a leaf that is a pickle, two leaves of one name.
    """
    with naming_checkpoint(file, "reading as npz"):
        archive = zipfile.ZipFile(file)
        try:
            members = _members(archive)
            leaves = {path: _member_spec(archive, file, path, member) for path, member in members.items()}
        except BaseException:
            archive.close()
            raise

    def read_leaf(path: TreePath) -> np.ndarray:
        with naming_checkpoint(file, f"reading leaf {path_text(path)!r}"), archive.open(members[path]) as stream:
            return _read_member(stream, path)

    return Checkpoint(file, "npz", leaves, read_leaf, archive.close)


def _members(archive: zipfile.ZipFile) -> Mapping[TreePath, zipfile.ZipInfo]:
    members: dict[TreePath, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        path = (member.filename.removesuffix(".npy"),)
        if path in members:
            raise CheckpointError(f"two leaves are called {path_text(path)!r}.", fix="Leave one out.")
        if len(members) >= MAX_LEAVES:
            raise CheckpointError(f"more than {MAX_LEAVES} leaves.", fix="Give the checkpoint of a model.")
        members[path] = member
    return members


def _member_spec(archive: zipfile.ZipFile, file: Path, path: TreePath, member: zipfile.ZipInfo) -> LeafSpec:
    with naming_checkpoint(file, f"reading leaf {path_text(path)!r}"), archive.open(member) as stream:
        return _header_spec(io.BytesIO(stream.read(NPY_HEADER_BYTES)), path)


def _header_spec(stream: IO[bytes], path: TreePath) -> LeafSpec:
    version = np.lib.format.read_magic(stream)
    shape, _, dtype = HEADER_READERS[version](stream) if version in HEADER_READERS else ((), False, None)
    if dtype is None or dtype.names is not None:  # version 3 is for field names in Unicode
        raise CheckpointError(
            f"leaf {path_text(path)!r} has fields, which no array of JAX has.",
            fix="Save plain arrays.",
            leaf=path_text(path),
        )
    if dtype.hasobject:
        raise CheckpointError(
            f"leaf {path_text(path)!r} is a pickled object, which could run code.",
            fix="Save the arrays one by one: numpy.savez(file, **{name: array}).",
            leaf=path_text(path),
        )
    return LeafSpec(shape, "bfloat16" if dtype == np.dtype("V2") else str(dtype))


def _read_member(stream: IO[bytes], path: TreePath) -> np.ndarray:
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):  # zipfile checks the CRC only when the end is read
        raise CheckpointError(
            f"leaf {path_text(path)!r} has extra data after its array.", fix="Save it again.", leaf=path_text(path)
        )
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


def write(file: Path, outgoing: OutgoingCheckpoint) -> None:
    """Write the same file as `numpy.savez`, one leaf at a time."""
    with naming_checkpoint(file, "writing npz"), zipfile.ZipFile(file, "x", zipfile.ZIP_STORED) as archive:
        for leaf in outgoing.leaves:
            _check_dtype(leaf)
            with archive.open(f"{path_text(leaf.path)}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, leaf.make(), allow_pickle=False)


def _check_dtype(leaf: OutgoingLeaf) -> None:
    """Raise for a dtype that numpy writes and cannot read back: float8 becomes `<f1` (numpy 2.4.6)."""
    dtype = dtype_named(leaf.spec.dtype)
    if dtype.type.__module__ == "ml_dtypes" and leaf.spec.dtype != "bfloat16":
        raise CheckpointError(
            f"leaf {path_text(leaf.path)!r} is {leaf.spec}, which npz does not support.",
            fix="Use another format.",
            leaf=path_text(leaf.path),
        )


NPZ = Format("npz", (".npz",), read, write, recognise=lambda head: head.startswith(b"PK\x03\x04"))
