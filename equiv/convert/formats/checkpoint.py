"""Nouns of a checkpoint: a file whose leaves are known before any of them is read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from equiv.convert.formats.tree_paths import TreePath
from equiv.core.leaves import LeafSpec
from equiv.errors import EquivError, told

SMALL_FLOATS = tuple(
    name for name in dir(ml_dtypes) if name.startswith(("float", "int", "uint")) and not name.endswith("info")
)
"""Names of the dtypes that ml_dtypes adds, besides bfloat16."""


class CheckpointError(EquivError):
    """A checkpoint that cannot be read, written or taken over as it stands."""


class Unfit(CheckpointError):
    """A checkpoint that is not, or not quite, what a library keeps of the case's model.

    Attributes:
        found: how many of the library's leaves it has.
    """

    def __init__(self, text: str, found: int) -> None:
        super().__init__(text)
        self.found = found


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been opened: what it holds is known, no leaf has been read.

    Attributes:
        file: where it lies.
        format: `npz`, `safetensors`, `msgpack`, `orbax` or `pickle`.
        leaves: path to shape and dtype, in the file's own order.
        read: one leaf as a numpy array of that shape and dtype.
        close: gives its file back.
    """

    file: Path
    format: str
    leaves: Mapping[TreePath, LeafSpec]
    read: Callable[[TreePath], np.ndarray]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Leaf:
    """One leaf to be written: its place, what it will be, and what makes it; called once, in order."""

    path: TreePath
    spec: LeafSpec
    make: Callable[[], np.ndarray]


def dtype_of(name: str) -> np.dtype:
    """A numpy dtype from its name, those of ml_dtypes included.

    Raises:
        CheckpointError: there is none of that name.
    """
    try:
        return np.dtype(getattr(ml_dtypes, name)) if name == "bfloat16" or name in SMALL_FLOATS else np.dtype(name)
    except TypeError as error:
        raise CheckpointError(
            f"there is no dtype {name!r}. Save the leaf as one that numpy or ml_dtypes has."
        ) from error


def spec_of(array: np.ndarray) -> LeafSpec:
    """Shape and dtype of an array."""
    return LeafSpec(tuple(array.shape), str(array.dtype))


def size_of(spec: LeafSpec) -> int:
    """Bytes of a leaf."""
    return int(np.prod(spec.shape, dtype=object)) * dtype_of(spec.dtype).itemsize


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array, row by row and without a copy where they lie so; bfloat16 has no buffer of its own."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextmanager
def guarded(file: Path, doing: str) -> Iterator[None]:
    """What a format's library raises becomes one message that names the file.

    Raises:
        CheckpointError: whatever was raised.
    """
    try:
        yield
    except EquivError as error:
        if str(error).startswith(str(file)):
            raise
        raise CheckpointError(f"{file}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: {doing} failed: {error.strerror or told(error)}.") from error
    except Exception as error:
        mend = "Give another file or format" if doing.startswith("writing") else "Give a whole file of that format"
        raise CheckpointError(f"{file}: {doing} failed with {told(error)}. {mend}.") from error
