"""Tables of two ports that are one but for their last digits: which number of one is which of the other. NumPy only."""

from collections.abc import Sequence

import numpy as np

from equiv.programs.constants import ComputedTable, last_digits
from equiv.programs.probes import ulp


def match_table(
    array: np.ndarray,
    tables: Sequence[ComputedTable],
    unknown: np.ndarray | None = None,
    partly: bool = False,
) -> np.ndarray | None:
    """Find the values of the other port that a table stands for: those from which rounding may lead to it.

    Args:
        array: the table, in float64.
        tables: of the other port.
        unknown: how far each number may be from what it stands for; None: one last digit of float32.
        partly: whether numbers that the other port lacks may stay, as in a table of more positions than a batch has.

    Returns:
        A table of as many elements in the same order; else, for every element, the nearest one of few tables; None
        where the other port has no such numbers, or the same.
    """
    size = last_digits(array) if unknown is None else unknown
    found = _closest_table(array, size, tables)
    found = _match_elements(array, size, tables, partly) if found is None else found
    # What differs by rounding of float64 alone needs no reading.
    known = found is None or np.all(np.abs(found - array) <= size * ulp(np.dtype("float32")))
    return None if known else found


def _closest_table(array: np.ndarray, size: np.ndarray, tables: Sequence[ComputedTable]) -> np.ndarray | None:
    """The values of the closest table of as many elements; None where each has one that is too far."""
    best: tuple[float, np.ndarray] | None = None
    for table in tables:
        if table.value.size != array.size:
            continue
        value, rounding = table.value.reshape(array.shape), table.rounding.reshape(array.shape)
        change = np.abs(value - array)
        if np.all(change <= size + rounding) and (best is None or change.sum() < best[0]):
            best = float(change.sum()), value
    return best[1] if best else None


def _match_elements(
    array: np.ndarray, size: np.ndarray, tables: Sequence[ComputedTable], partly: bool
) -> np.ndarray | None:
    """The numbers of few tables, in any order, for all elements; None where one of them has none, unless `partly`.

    The tables that have most of the elements come first: beside a sine of small angles there are the angles themselves.
    """
    found, left = array.copy(), size > 0
    nearest = [_nearest_numbers(array, size, table) for table in tables]
    while left.any():
        counts = [int(np.sum(close & left)) for _, close in nearest]
        if max(counts, default=0) == 0:
            return found if partly else None
        values, close = nearest[int(np.argmax(counts))]
        found = np.where(close & left, values, found)
        left &= ~close
    return found


def _nearest_numbers(array: np.ndarray, size: np.ndarray, table: ComputedTable) -> tuple[np.ndarray, np.ndarray]:
    """The nearest number of a table for every element, and whether float32 rounding may lead from one to the other."""
    values, first = np.unique(table.value, return_index=True)
    after = np.minimum(np.searchsorted(values, array), values.size - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(values[before] - array) <= np.abs(values[after] - array), before, after)
    return values[nearest], np.abs(values[nearest] - array) <= size + table.rounding.ravel()[first][nearest]
