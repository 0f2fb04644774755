"""What is no checkpoint, cannot be opened, or has a manifest that is none."""

import os
from pathlib import Path

from conversion.good_checkpoint import npz, written


def link_to_nowhere(folder: Path) -> Path:
    """A link whose file is gone."""
    (folder / "old.npz").symlink_to(folder / "gone.npz")
    return folder / "old.npz"


def with_manifest(data: bytes | None):
    """A good file with a manifest of these bytes; None: one that waits for ever when it is opened."""

    def make(folder: Path) -> Path:
        file = npz()(folder)
        if data is None:
            os.mkfifo(f"{file}.manifest.json")
        else:
            Path(f"{file}.manifest.json").write_bytes(data)
        return file

    return make


def fifo(folder: Path) -> Path:
    """What waits for ever when it is opened."""
    os.mkfifo(folder / "old.npz")
    return folder / "old.npz"


BAD = {
    "one array of numpy": (written(b"\x93NUMPY\x01\x00", "old.npy"), r"old\.npy: it is one array of numpy\. Give npz"),
    "HDF5": (written(b"\x89HDF\r\n\x1a\n", "old.h5"), r"old\.h5: it is HDF5\. Give npz"),
    "gzip": (written(b"\x1f\x8b\x08\x00\x00", "old.pkl"), r"old\.pkl: it is compressed with gzip"),
    "a manifest that is no manifest": (with_manifest(b'{"equiv": 1}'), r"old\.npz\.manifest\.json: not the manifest"),
    "a manifest that is cut": (with_manifest(b'{"equiv": "0'), r"manifest\.json: not the manifest.*: Input data was"),
    "a manifest that is a pipe": (
        with_manifest(None),
        r"manifest\.json: not the manifest of a conversion: it is no file",
    ),
    "a link to nowhere": (link_to_nowhere, r"old\.npz: cannot be opened: No such file"),
    "nothing there": (lambda folder: folder / "old.npz", r"old\.npz: cannot be opened: No such file"),
    "empty file": (written(b""), r"old\.npz: it is empty"),
    "text": (written(b"once upon a time", "old.txt"), r"old\.txt: "),
    "pipe": (fifo, r"old\.npz: neither a file nor a folder"),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
