"""Parts of a batch that a model has to treat as it treats them alone: single rows, and rows without their padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equiv.core.batch_spec import INTEGER_DTYPES, BatchEntry
from equiv.core.case import BatchInvariance, CallSequence, Padding
from equiv.core.method_call import MethodCall
from equiv.errors import CaseError

MOST_ROWS = 4
"""Largest number of rows that are called alone: each is one more call in the program that is compared."""


@dataclass(frozen=True)
class BatchPart:
    """One row of a batch, or its valid positions.

    Attributes:
        row: its number.
        rows: how many the batch has.
        positions: the valid ones; empty: all are.
        length: how many positions the batch has; 0: no position is left out.
        mask: name of the input that says which are valid.
    """

    row: int
    rows: int
    positions: tuple[int, ...] = ()
    length: int = 0
    mask: str = ""

    @property
    def name(self) -> str:
        """For people, and in names of outputs."""
        return f"row {self.row}"

    def take_input(self, name: str, array: Any) -> Any:
        """The part of an input, with axes as the batch has them.

        Args:
            name: of the input.
            array: any shape.
        """
        shape = array.shape
        if not shape:
            return array
        by_row = shape[0] == self.rows
        taken = array[self.row : self.row + 1] if by_row else array
        return self._take_positions(taken, self._axes_of_positions(name, shape, by_row))

    def cuts(self, name: str, shape: Sequence[int]) -> bool:
        """Whether the padding of an input of this shape is left out."""
        return bool(shape) and bool(self._axes_of_positions(name, shape, shape[0] == self.rows))

    def _axes_of_positions(self, name: str, shape: Sequence[int], by_row: bool) -> tuple[int, ...]:
        """The axes of an input that are positions: all of this length of a mask, else the first after the rows."""
        if not self.length:
            return ()
        if name == self.mask:
            return tuple(axis for axis in range(1, len(shape)) if shape[axis] == self.length)
        first = 1 if by_row else 0
        return (first,) if len(shape) > first and shape[first] == self.length else ()

    def is_row(self, batch: Sequence[int], alone: Sequence[int]) -> bool:
        """Whether an output has a row for each of the batch: its shape is that of the part but for rows and padding.

        Args:
            batch: shape of the output of the batch.
            alone: shape of the output of the part.
        """
        if len(batch) != len(alone):
            return False
        pairs = [(one, other) for one, other in zip(batch, alone, strict=True) if one != other]
        rows = pairs.count((self.rows, 1))
        return rows == 1 and len(pairs) - rows == pairs.count((self.length, len(self.positions)))

    def take_output(self, array: Any, alone: Sequence[int]) -> Any:
        """The part of an output of the batch for which `is_row` holds, of the shape `alone`."""
        shape = array.shape
        by_row = next(axis for axis in range(len(shape)) if (shape[axis], alone[axis]) == (self.rows, 1))
        index = tuple(slice(self.row, self.row + 1) if axis == by_row else slice(None) for axis in range(len(shape)))
        padded = tuple(axis for axis in range(len(shape)) if axis != by_row and shape[axis] != alone[axis])
        return self._take_positions(array[index], padded)

    def _take_positions(self, array: Any, axes: Sequence[int]) -> Any:
        first, last = (self.positions[0], self.positions[-1] + 1) if self.positions else (0, 0)
        whole = last - first == len(self.positions)
        for axis in axes:
            part = slice(first, last) if whole else np.asarray(self.positions)
            array = array[(slice(None),) * axis + (part,)]
        return array


@dataclass(frozen=True)
class PartedCall(CallSequence):
    """One call with a batch, for one port, and with each of its parts, for another: both have the same outputs.

    Attributes:
        known: the calls, read.
        parts: the parts.
        alone: name of the port that is called with each part.
    """

    known: Mapping[str, MethodCall] = field(default_factory=dict)
    parts: tuple[BatchPart, ...] = ()
    alone: str = ""


def title_of(invariance: BatchInvariance | Padding, method: str) -> str:
    """What is compared, in words, where the method is this one."""
    alone = f"without the padding of {invariance.mask}" if isinstance(invariance, Padding) else "of rows alone"
    return f"{method} {alone}"


def rows_of(parts: Sequence[BatchPart]) -> str:
    """Which rows of the batch the parts are, in words: the others are not called."""
    numbers = ", ".join(str(row) for row in sorted(part.row for part in parts))
    return f"rows {numbers} of {parts[0].rows}, counted from 0, were called alone"


def find_parts(
    invariance: BatchInvariance | Padding, entries: Mapping[str, BatchEntry], inputs: Sequence[str]
) -> tuple[BatchPart, ...]:
    """Find the parts of a batch that are called alone.

    Args:
        invariance: what holds.
        entries: the batch.
        inputs: the batch entries that the call takes, in order.

    Raises:
        CaseError: the batch has less than two rows; the mask is no input, has no values that are kept, is of other
            shape or values than a mask, or leaves nothing out.
    """
    first = next((name for name in inputs if entries[name].axes), "")
    rows = entries[first].spec.shape[0] if first else 0
    if rows < 2:
        had = f"input {first!r} has {rows}" if first else "no input has one"
        raise CaseError(
            f"invariances: a batch of two rows or more is needed, and {had}.", fix="Give the batch more rows."
        )
    if isinstance(invariance, BatchInvariance):
        return tuple(BatchPart(row, rows) for row in sorted({0, rows // 2, rows - 1}))
    return _unpadded_rows(invariance, entries, inputs, rows)


def _unpadded_rows(
    padding: Padding, entries: Mapping[str, BatchEntry], inputs: Sequence[str], rows: int
) -> tuple[BatchPart, ...]:
    """The rows of different lengths, shortest first, each with its valid positions."""
    valid = _valid_positions(padding, entries, inputs, rows)
    length = valid.shape[1]
    found: dict[tuple[int, ...], BatchPart] = {}
    for row in range(rows):
        positions = tuple(int(one) for one in np.flatnonzero(valid[row]))
        if positions:
            found.setdefault(positions, BatchPart(row, rows, positions, length, padding.mask))
    parts = sorted(found.values(), key=lambda part: len(part.positions))
    if not any(len(part.positions) < length for part in parts):
        raise CaseError(
            f"invariances: {padding.mask!r} leaves out no position of any row with a valid one.",
            fix="Give it other values, so that rows have padding, or valid=False where it marks the padding.",
        )
    cut = [name for name in inputs if name != padding.mask and parts[0].cuts(name, entries[name].spec.shape)]
    if not cut:
        raise CaseError(
            f"invariances: no input but {padding.mask!r} has an axis of its {length} positions.",
            fix="Give inputs of shape (batch, length, ...).",
        )
    return tuple(parts[:MOST_ROWS])


def _valid_positions(
    padding: Padding, entries: Mapping[str, BatchEntry], inputs: Sequence[str], rows: int
) -> np.ndarray:
    """Which positions are valid: bool, (rows, length).

    Raises:
        CaseError: as of `find_parts`.
    """
    entry = entries.get(padding.mask)
    if entry is None or padding.mask not in inputs:
        raise CaseError(
            f"invariances: the call takes no input {padding.mask!r}, only {', '.join(inputs)}.",
            fix="Name the input that says which positions are valid.",
        )
    if entry.kept is None:
        raise CaseError(
            f"invariances: the values of {padding.mask!r} are random, so that nothing says which positions are valid.",
            fix="Give the batch an array of its values.",
        )
    values = np.asarray(entry.kept)
    if values.ndim == 1 and entry.spec.dtype in INTEGER_DTYPES:
        others = (entries[name].spec.shape for name in inputs if name != padding.mask)
        length = next((shape[1] for shape in others if len(shape) > 1 and shape[0] == rows), 0)
        return np.arange(length)[None, :] < values[:, None]
    if values.ndim < 2 or values.shape[0] != rows or not set(np.unique(values).tolist()) <= {0, 1}:
        raise CaseError(
            f"invariances: {padding.mask!r} is {entry} with values {np.unique(values)[:3].tolist()} ..., and a mask is "
            f"of shape ({rows}, length) with values 0 and 1, or holds the {rows} lengths.",
            fix="Name such an input.",
        )
    marked = np.equal(values, padding.valid).reshape(rows, -1, values.shape[-1])
    return np.any(marked, axis=1)
