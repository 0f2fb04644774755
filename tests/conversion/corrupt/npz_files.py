"""Npz files that are no checkpoint of the case, or no whole ones."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conversion.corrupt.pickle_files import Calls
from conversion.good_checkpoint import KERNEL, changed, cut, good, npz, written


def twice_in_zip(folder: Path) -> Path:
    """zipfile writes a name a second time with a warning only."""
    file = npz()(folder)
    with zipfile.ZipFile(file) as archive:
        data = archive.read(f"{KERNEL}.npy")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{KERNEL}.npy", data)
    return file


def flipped(folder: Path) -> Path:
    """One bit of a leaf is another; zip has a checksum."""
    file = npz()(folder)
    data = bytearray(file.read_bytes())
    at = data.find(good()[KERNEL].tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    return file


def bomb(folder: Path) -> Path:
    """A few kilobytes that say they are four terabytes."""
    file = npz(**{KERNEL: None})(folder)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KERNEL}.npy", header.getvalue() + bytes(10**6))
    return file


def header_bomb(folder: Path) -> Path:
    """A few hundred kilobytes whose header says that it is four gigabytes, and is, once decompressed, 64 megabytes."""
    file = npz(**{KERNEL: None})(folder)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KERNEL}.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(2**26))
    return file


BAD = {
    "small floats in npz": (
        changed(lambda w: w.astype(jnp.float8_e5m2)),
        r"reading leaf 'params/linear/w' failed with ValueError: descr",
    ),
    "pickle in npz": (npz(**{KERNEL: np.array([{}], object)}), r"leaf 'params/linear/w' is a pickled object"),
    "fields in npz": (npz(**{KERNEL: np.zeros(3, [("é", "f4")])}), r"leaf 'params/linear/w' has fields"),
    "twice in a zip": (twice_in_zip, r"two leaves are called 'params/linear/w'"),
    "npz cut": (cut(npz()), r"old\.npz: reading as npz failed with BadZipFile"),
    "npz with one bit flipped": (flipped, r"BadZipFile: Bad CRC-32 for file 'params/linear/w\.npy'"),
    "npz that grows": (bomb, r"leaf 'params/linear/w' is float32\[1000000, 1000000\], haiku has"),
    "npz whose header grows": (header_bomb, r"reading leaf 'params/linear/w' failed with ValueError: EOF"),
    "npz that is a pickle": (written(pickle.dumps(Calls(os.system, "touch evil"))), r"failed with BadZipFile"),
    "a zip of something else": (
        lambda folder: zipfile.ZipFile(folder / "old.npz", "w").writestr("word.xml", "<xml/>") or folder / "old.npz",
        r"reading leaf 'word.xml' failed with ValueError",
    ),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
