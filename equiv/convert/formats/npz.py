"""npz, through numpy and zipfile: flat names, and no dtype beyond numpy's own."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, Leaf, dtype_of, guarded
from equiv.convert.formats.tree_paths import MOST, TreePath, shown
from equiv.core.leaves import LeafSpec

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


LONGEST = 12_000
"""Bytes in which a header ends: numpy takes 10,000 (numpy 2.4.6), but first reads as many as the file says."""


def read(file: Path) -> Checkpoint:
    """Open an npz file.

    numpy writes bfloat16 as two bytes of nothing in particular (`|V2`, numpy 2.4.6), which no other dtype that JAX has
    becomes: it is read as bfloat16. One byte of nothing is any of several small floats, and stays what it is.

    Raises:
        CheckpointError: no npz file, a leaf that is a pickle, two leaves of one name.
    """
    with guarded(file, "reading as npz"):
        archive = zipfile.ZipFile(file)
        try:
            members = _members(archive)
            leaves = {path: _leaf(archive, file, path, member) for path, member in members.items()}
        except BaseException:
            archive.close()
            raise

    def read_leaf(path: TreePath) -> np.ndarray:
        with guarded(file, f"reading leaf {shown(path)!r}"), archive.open(members[path]) as stream:
            return _read_leaf(stream, path)

    return Checkpoint(file, "npz", leaves, read_leaf, archive.close)


def _members(archive: zipfile.ZipFile) -> Mapping[TreePath, zipfile.ZipInfo]:
    members: dict[TreePath, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        path = (member.filename.removesuffix(".npy"),)
        if path in members:
            raise CheckpointError(f"two leaves are called {shown(path)!r}. Leave one out.")
        if len(members) >= MOST:
            raise CheckpointError(f"more than {MOST} leaves. Give the checkpoint of a model.")
        members[path] = member
    return members


def _leaf(archive: zipfile.ZipFile, file: Path, path: TreePath, member: zipfile.ZipInfo) -> LeafSpec:
    with guarded(file, f"reading leaf {shown(path)!r}"), archive.open(member) as stream:
        return _header(io.BytesIO(stream.read(LONGEST)), path)


def _header(stream: IO[bytes], path: TreePath) -> LeafSpec:
    version = np.lib.format.read_magic(stream)
    shape, _, dtype = HEADERS[version](stream) if version in HEADERS else ((), False, None)
    if dtype is None or dtype.names is not None:  # a third version is for names of fields
        raise CheckpointError(f"leaf {shown(path)!r} has fields, which no array of JAX has. Save plain arrays.")
    if dtype.hasobject:
        raise CheckpointError(
            f"leaf {shown(path)!r} is a pickled object, which could run code. "
            "Save the arrays one by one: numpy.savez(file, **{name: array})."
        )
    return LeafSpec(shape, "bfloat16" if dtype == np.dtype("V2") else str(dtype))


def _read_leaf(stream: IO[bytes], path: TreePath) -> np.ndarray:
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):  # zipfile compares its checksum only where the end is read
        raise CheckpointError(f"leaf {shown(path)!r} goes on after its array. Save it again.")
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


def write(file: Path, leaves: Sequence[Leaf]) -> None:
    """Write leaf by leaf what `numpy.savez` would write at once."""
    with guarded(file, "writing npz"), zipfile.ZipFile(file, "x", zipfile.ZIP_STORED) as archive:
        for leaf in leaves:
            _check_dtype(leaf)
            with archive.open(f"{shown(leaf.path)}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, leaf.make(), allow_pickle=False)


def _check_dtype(leaf: Leaf) -> None:
    """Raise for a dtype that numpy writes and cannot read again: float8 becomes `<f1` (numpy 2.4.6)."""
    dtype = dtype_of(leaf.spec.dtype)
    if dtype.type.__module__ == "ml_dtypes" and leaf.spec.dtype != "bfloat16":
        raise CheckpointError(
            f"leaf {shown(leaf.path)!r} is {leaf.spec}, which npz does not keep. Write another format."
        )
