"""Leaves in a scratch file, as memory maps of it: for libraries that take only a whole tree."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from equiv.conversion.formats.checkpoint import OutgoingLeaf, bytes_of, dtype_named, size_of
from equiv.conversion.formats.tree_paths import TreePath

ALIGNED = 64
"""Alignment of leaves in the scratch file, in bytes."""


@contextmanager
def scratch_views(file: Path, leaves: Sequence[OutgoingLeaf]) -> Iterator[Mapping[TreePath, np.ndarray]]:
    """Write the leaves to `file` one by one, yield memory maps of it, and remove it afterwards."""
    starts: dict[TreePath, int] = {}
    try:
        with file.open("xb") as stream:
            for leaf in leaves:
                stream.seek(-stream.tell() % ALIGNED, 1)
                starts[leaf.path] = stream.tell()
                stream.write(bytes_of(leaf.make()))
        yield {leaf.path: _memory_map(file, leaf, starts[leaf.path]) for leaf in leaves}
    finally:
        file.unlink(missing_ok=True)


def _memory_map(file: Path, leaf: OutgoingLeaf, start: int) -> np.ndarray:
    dtype = dtype_named(leaf.spec.dtype)
    if not size_of(leaf.spec):
        return np.empty(leaf.spec.shape, dtype)
    return np.memmap(file, dtype, "r", start, leaf.spec.shape)
