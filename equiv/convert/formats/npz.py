"""npz, through numpy and zipfile: flat names, and no dtype beyond numpy's own."""

import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from equiv.convert.checkpoint import Checkpoint, CheckpointError, Leaf, dtype_of, guarded
from equiv.convert.tree import TreePath, shown
from equiv.variables import LeafSpec

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


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
            leaves = _leaves(archive, file)
        except BaseException:
            archive.close()
            raise
    return Checkpoint(file, "npz", leaves, partial(_read_leaf, archive, file), archive.close)


def _leaves(archive: zipfile.ZipFile, file: Path) -> dict[TreePath, LeafSpec]:
    leaves: dict[TreePath, LeafSpec] = {}
    for member in archive.infolist():
        path = (member.filename.removesuffix(".npy"),)
        if path in leaves:
            raise CheckpointError(f"two leaves are called {shown(path)!r}. Leave one out.")
        with guarded(file, f"reading leaf {shown(path)!r}"), archive.open(member) as stream:
            leaves[path] = _header(stream, path)
    return leaves


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


def _read_leaf(archive: zipfile.ZipFile, file: Path, path: TreePath) -> np.ndarray:
    with guarded(file, f"reading leaf {shown(path)!r}"), archive.open(f"{path[0]}.npy") as stream:
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
