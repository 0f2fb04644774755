"""An opened checkpoint: shapes and dtypes of its leaves are known before any of them is read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from equiv.conversion.formats.tree_paths import Empty, TreePath
from equiv.core.leaves import LeafSpec
from equiv.errors import EquivError, error_summary

SMALL_FLOATS = tuple(
    name for name in dir(ml_dtypes) if name.startswith(("float", "int", "uint")) and not name.endswith("info")
)
"""Names of the dtypes that ml_dtypes adds, other than bfloat16."""


TEXT = LeafSpec((), "text")
"""Of a leaf that is a text, such as a name beside the arrays: it can only be left out, and is never read."""


class CheckpointError(EquivError):
    """A checkpoint that cannot be read, written or converted."""


class TemplateMismatch(CheckpointError):
    """A checkpoint whose leaves do not match the template of a library.

    Attributes:
        found: number of the library's leaves that it has.
    """

    def __init__(self, problem: str, found: int, *, fix: str = "", port: str = "", leaf: str = "") -> None:
        super().__init__(problem, fix=fix, port=port, leaf=leaf)
        self.found = found


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been opened: its leaves are known, none has been read.

    Attributes:
        file: its path.
        format: the name of its `Format`.
        leaves: path to shape and dtype, in the file's own order.
        read: reads one leaf as a numpy array of that shape and dtype.
        close: closes its file.
    """

    file: Path
    format: str
    leaves: Mapping[TreePath, LeafSpec]
    read: Callable[[TreePath], np.ndarray]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class OutgoingLeaf:
    """One leaf to be written: its path, shape and dtype, and a function that computes it, called once and in order."""

    path: TreePath
    spec: LeafSpec
    make: Callable[[], np.ndarray]


@dataclass(frozen=True)
class OutgoingCheckpoint:
    """A checkpoint to be written.

    Attributes:
        leaves: its leaves.
        empties: nodes without leaves, which only nested formats can store.
        tree: maps leaves by path to the library's own tree, as a user would save it with orbax.
    """

    leaves: Sequence[OutgoingLeaf]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


@dataclass(frozen=True)
class Format:
    """A checkpoint format: all that is known of it outside of its module.

    Attributes:
        name: as in `--format` and in manifests.
        suffixes: of its files, with the dot; "" where a path without a suffix is of this format.
        read: opens a checkpoint.
        write: writes one, leaf by leaf; None where it is only read.
        recognise: whether the first bytes of a file are of this format.
        conclusive: whether `recognise` goes before the suffix: no other format begins like that.
        is_folder: whether a checkpoint is a folder.
        needs_whole_tree: whether leaves are first written to a scratch file, which takes their size once more.
        can_run_code: whether it is read only on request.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Checkpoint]
    write: Callable[[Path, OutgoingCheckpoint], None] | None
    recognise: Callable[[bytes], bool] = lambda _: False
    conclusive: bool = True
    is_folder: bool = False
    needs_whole_tree: bool = False
    can_run_code: bool = False


def dtype_named(name: str) -> np.dtype:
    """A numpy dtype from its name, those of ml_dtypes included.

    Raises:
        CheckpointError: no dtype has that name.
    """
    try:
        return np.dtype(getattr(ml_dtypes, name)) if name == "bfloat16" or name in SMALL_FLOATS else np.dtype(name)
    except TypeError as error:
        raise CheckpointError(
            f"there is no dtype {name!r}.", fix="Save the leaf as one that numpy or ml_dtypes has."
        ) from error


def spec_of(array: np.ndarray) -> LeafSpec:
    """Shape and dtype of an array."""
    return LeafSpec(tuple(array.shape), str(array.dtype))


def size_of(spec: LeafSpec) -> int:
    """Size of a leaf in bytes."""
    return int(np.prod(spec.shape, dtype=object)) * dtype_named(spec.dtype).itemsize


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array in row-major order, without a copy where possible; bfloat16 has no buffer protocol."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextmanager
def naming_checkpoint(file: Path, doing: str) -> Iterator[None]:
    """Turn every exception of a format's library into one message that names the file.

    Raises:
        CheckpointError: on any exception.
    """
    try:
        yield
    except EquivError as error:
        if str(error).startswith(str(file)):
            raise
        raise CheckpointError(f"{file}: {error.problem}", fix=error.fix, port=error.port, leaf=error.leaf) from error
    except OSError as error:
        raise CheckpointError(f"{file}: {doing} failed: {error.strerror or error_summary(error)}.") from error
    except Exception as error:
        fix = "Give another file or format." if doing.startswith("writing") else "Give a complete file of that format."
        raise CheckpointError(f"{file}: {doing} failed with {error_summary(error)}.", fix=fix) from error
