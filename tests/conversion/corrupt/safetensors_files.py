"""Safetensors files that are cut, lie about their size, or name a leaf twice."""

import json
import struct
from pathlib import Path

import numpy as np
from conversion.good_checkpoint import KERNEL, cut, good, written
from safetensors.numpy import save_file


def safetensors(folder: Path) -> Path:
    """A good safetensors file."""
    save_file({name: np.array(array, order="C") for name, array in good().items()}, folder / "old.safetensors")
    return folder / "old.safetensors"


def with_header(change):
    """A safetensors file with its header changed by a function of the parsed header to text."""

    def make(folder: Path) -> Path:
        file = safetensors(folder)
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        text = change(json.loads(data[8 : 8 + length])).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return file

    return make


def moved_offsets(header):
    """Two leaves share bytes."""
    header[KERNEL]["data_offsets"] = [offset + 4 for offset in header[KERNEL]["data_offsets"]]
    return json.dumps(header)


def of_another_shape(header):
    """More elements than 64 bits count."""
    header[KERNEL]["shape"] = [2**40, 2**40]
    return json.dumps(header)


def of_another_dtype(header):
    """An entry that says half of the size that its bytes have."""
    header[KERNEL]["dtype"] = "F16"
    return json.dumps(header)


def named_out(header):
    """A name that is a path out of any folder."""
    header["../../evil"] = header.pop(KERNEL)
    return json.dumps(header)


def named_twice(header):
    """The same name a second time."""
    text = json.dumps(header)
    return text[:-1] + f", {json.dumps(KERNEL)}: {json.dumps(header[KERNEL])}}}"


def long_header(folder: Path) -> Path:
    """A header that says it is as long as memory."""
    file = safetensors(folder)
    file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])
    return file


BAD = {
    "safetensors cut": (cut(safetensors, 0.9), r"old\.safetensors: reading as safetensors failed"),
    "safetensors with a long header": (long_header, r"reading as safetensors failed"),
    "safetensors with shared bytes": (with_header(moved_offsets), r"reading as safetensors failed"),
    "safetensors with a name twice": (with_header(named_twice), r"two leaves are called 'params/linear/w'"),
    "safetensors with a shape that overflows": (with_header(of_another_shape), r"reading as safetensors failed"),
    "safetensors with a false dtype": (with_header(of_another_dtype), r"reading as safetensors failed"),
    "safetensors with a way out": (with_header(named_out), r"1 leaf too many for haiku, first '\.\./\.\./evil'"),
    "safetensors without a header": (written(struct.pack("<Q", 2) + b"{}", "old.safetensors"), r"none of its 0 leaves"),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
