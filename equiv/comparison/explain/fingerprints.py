"""Fingerprints of arrays: a few numbers that two programs share where they compute the same numbers in any order.

A fingerprint does not depend on the order of the elements, so that a transposed or reshaped array has the same. One
huge number, as in a mask, does not drown the others: every element counts as `a / (s + |a|)`, at most 1, at three
scales `s` that are quantiles of the elements themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equiv.core.budget import rounding_growth

QUANTILES = (0.1, 0.5, 0.9)
"""The scales of a fingerprint: of these parts of the elements that are not zero, all are smaller."""

POWERS = (1, 2, 3)
"""Means of these powers of the bounded elements, at every scale."""

LENGTH = 2 + len(QUANTILES) * (1 + len(POWERS))
"""Numbers of a fingerprint: of finite elements and of NaN, then logarithm and means of every scale."""

SORTED = 2 + (1 + len(POWERS)) + 1
"""The number by which fingerprints are looked up: the mean at the middle scale."""

MARGIN = 30.0
"""How many times its measured response a fingerprint may be off: in one run a value may move little by chance."""

NOISY = 1e-3
"""A fingerprint that may be off by more is of what rounding leaves of a zero: near everything, it is nothing's twin."""

EPS = float(np.finfo("float64").eps)


def take_fingerprint(array: np.ndarray) -> np.ndarray:
    """Take the fingerprint of an array of numbers or truth values: `[LENGTH]`, float64."""
    flat = np.ascontiguousarray(array).ravel()
    if flat.dtype.kind == "c":
        flat = flat.view(f"float{flat.dtype.itemsize * 4}")
    wide = flat.astype("float64", copy=False)
    finite = np.isfinite(wide)
    found = np.zeros(LENGTH)
    found[:2] = finite.sum(), np.isnan(wide).sum()
    if found[0] < wide.size:
        wide = wide[finite]
    sizes = np.abs(wide)
    scales = sizes[sizes > 0]
    if not scales.size:
        return found
    places = [int(part * (scales.size - 1)) for part in QUANTILES]
    scales.partition(sorted(set(places)))
    for number, place in enumerate(places):
        bounded = wide / (scales[place] + sizes)
        square = bounded * bounded
        at = 2 + number * (1 + len(POWERS))
        found[at : at + 4] = np.log(scales[place]), bounded.mean(), square.mean(), (square * bounded).mean()
    return found


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The fingerprints of all values of one program on several probes, with how far rounding moves them.

    Attributes:
        prints: `[values, probes * LENGTH]`; NaN for a value that has none.
        allowed: how far each may be off, in the same shape.
        sizes: number of elements of every value.
    """

    prints: np.ndarray
    allowed: np.ndarray
    sizes: np.ndarray


def join_fingerprints(
    runs: Sequence[Sequence[np.ndarray | None]], nudged: Sequence[Sequence[np.ndarray | None]], sizes: Sequence[int]
) -> Fingerprints:
    """Join the fingerprints of the runs of one program.

    Args:
        runs: those of every value on each probe.
        nudged: the same with every input moved by an ulp; after other control flow there are other values, and these
            say nothing.
        sizes: number of elements of every value.
    """
    parts, moves = [], []
    for run, moved in zip(runs, nudged, strict=True):
        prints = _as_matrix(run)
        change = np.zeros_like(prints)
        if len(moved) == len(run):
            change = np.nan_to_num(np.abs(_as_matrix(moved) - prints))
        # A value moves as far as its fingerprint does where that moves most.
        depth = np.array([rounding_growth(index + 1) for index in range(len(run))])
        parts.append(prints)
        moves.append(np.maximum(change[:, 2:].max(axis=1, initial=0.0), EPS) * depth * MARGIN)
    allowed = np.stack(moves, axis=1).max(axis=1)[:, None] * np.ones(LENGTH * len(parts))
    return Fingerprints(np.concatenate(parts, axis=1), allowed, np.asarray(sizes))


def _as_matrix(run: Sequence[np.ndarray | None]) -> np.ndarray:
    empty = np.full(LENGTH, np.nan)
    return np.array([empty if one is None else one for one in run]).reshape(-1, LENGTH)


def match_fingerprints(left: Fingerprints, right: Fingerprints, most: int = 8) -> list[tuple[int, ...]]:
    """For every value of the left program, the values of the right one that have its fingerprint.

    Args:
        left: of one program.
        right: of the other.
        most: number of values that are given; of many similar, as zeros, the first.
    """
    found: list[tuple[int, ...]] = [()] * len(left.sizes)
    for size in np.intersect1d(left.sizes, right.sizes):
        ours, theirs = (_known_of_size(side, size) for side in (left, right))
        # What is near everything is the twin of what is near everything, too; of anything else it is none.
        for wanted, others in ((~_is_noisy(left, ours), ~_is_noisy(right, theirs)), (_is_noisy(left, ours), ...)):
            _match_within(left, right, ours[wanted], theirs[others].ravel(), most, found)
    return found


def _is_noisy(prints: Fingerprints, values: np.ndarray) -> np.ndarray:
    return prints.allowed[values, SORTED] > NOISY


def _match_within(
    left: Fingerprints,
    right: Fingerprints,
    ours: np.ndarray,
    theirs: np.ndarray,
    most: int,
    found: list[tuple[int, ...]],
) -> None:
    """Add the matches of some values among some others of their size."""
    if not ours.size or not theirs.size:
        return
    order = theirs[np.argsort(right.prints[theirs, SORTED], kind="stable")]
    column, window = right.prints[order, SORTED], float(right.allowed[order, SORTED].max())
    for value in ours:
        own, allowed = left.prints[value], left.allowed[value]
        reach = allowed[SORTED] + window
        first, last = np.searchsorted(column, [own[SORTED] - reach, own[SORTED] + reach])
        near = order[first : last + 1]
        same = (np.abs(right.prints[near] - own) <= allowed + right.allowed[near]).all(axis=1)
        found[value] = tuple(sorted(near[same].tolist())[:most])


def _known_of_size(side: Fingerprints, size: int) -> np.ndarray:
    return np.flatnonzero((side.sizes == size) & ~np.isnan(side.prints[:, 0]))
