"""Leaves in a scratch file, as views of it: for libraries that want a whole tree at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from equiv.convert.formats.checkpoint import Leaf, bytes_of, dtype_of, size_of
from equiv.convert.formats.tree_paths import TreePath

ALIGNED = 64
"""Bytes: where a leaf begins is a multiple of it."""


@contextmanager
def spooled(file: Path, leaves: Sequence[Leaf]) -> Iterator[Mapping[TreePath, np.ndarray]]:
    """Write the leaves to `file` one by one, give views of it that hold no memory, and remove it."""
    starts: dict[TreePath, int] = {}
    try:
        with file.open("xb") as stream:
            for leaf in leaves:
                stream.seek(-stream.tell() % ALIGNED, 1)
                starts[leaf.path] = stream.tell()
                stream.write(bytes_of(leaf.make()))
        yield {leaf.path: _view(file, leaf, starts[leaf.path]) for leaf in leaves}
    finally:
        file.unlink(missing_ok=True)


def _view(file: Path, leaf: Leaf, start: int) -> np.ndarray:
    dtype = dtype_of(leaf.spec.dtype)
    if not size_of(leaf.spec):
        return np.empty(leaf.spec.shape, dtype)
    return np.memmap(file, dtype, "r", start, leaf.spec.shape)
