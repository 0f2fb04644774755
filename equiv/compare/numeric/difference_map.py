"""How the worst differences of a check are spread over their elements: over steps, in ulps, as a map. Numpy only."""

import math
from dataclasses import replace

import numpy as np

from equiv.compare.numeric import arrays as plain
from equiv.compare.observation import Comparison
from equiv.core.batch_spec import FLOATS
from equiv.core.results import SHADES, ULPS, CheckResult, Finding, Spread
from equiv.programs.probes import ulp

WORST = 3
"""Of how many findings of a check, where it is not proved; of one where it is. The results stay small."""


ROWS, COLUMNS = 16, 40
"""Most blocks of a map."""


def with_spreads(comparison: Comparison, check: CheckResult) -> CheckResult:
    """The same check, with the spread of its worst findings."""
    measured = sorted((item for item in check.findings if item.error), key=_over, reverse=True)
    unproved = [item for item in measured if not item.grade.startswith("proved")]
    chosen = {item.place: spread_of(comparison, item) for item in unproved[:WORST] or measured[:1]}
    findings = tuple(replace(item, spread=chosen.get(item.place)) for item in check.findings)
    return replace(check, findings=findings)


def _over(finding: Finding) -> float:
    return math.inf if finding.ratio is None else finding.ratio


def spread_of(comparison: Comparison, finding: Finding) -> Spread | None:
    """How one finding's difference is spread; None where it is not the difference of two arrays of one shape."""
    ours, theirs = (side.samples.get(finding.probe) for side in (comparison.reference, comparison.candidate))
    if ours is None or theirs is None or finding.place not in theirs.native or finding.place not in ours.native:
        return None
    native = ours.native[finding.place], theirs.native[finding.place]
    if plain.unlike(*native) or str(native[0].dtype) not in FLOATS:
        return None
    lifted = None
    if ours.lifted is not None and theirs.lifted is not None and finding.place in ours.lifted:
        lifted = (ours.lifted[finding.place], theirs.lifted[finding.place]) if finding.place in theirs.lifted else None
    judge = lifted if lifted is not None and finding.precision == "float64" else native
    with np.errstate(all="ignore"):
        return _spread(finding, native, judge, lifted)


Pair = tuple[np.ndarray, np.ndarray]


def _spread(finding: Finding, native: Pair, judge: Pair, lifted: Pair | None) -> Spread | None:
    apart = _finite(np.abs(judge[0].astype("float64") - judge[1].astype("float64")))
    if np.max(apart, initial=0.0) != finding.error:
        return None  # a formula was judged, not these arrays
    ratios: tuple[float, ...] = ()
    if finding.place.startswith("train: ") and apart.ndim:
        worst = [float(np.max(step, initial=0.0)) for step in apart]
        ratios = tuple(float(_finite(np.divide(error, finding.budget))) if finding.budget else -1.0 for error in worst)
        apart = apart[int(np.argmax(worst))]
    shades, shape = ((), ()) if finding.grade.startswith("proved") else shaded(apart)
    rounded = () if lifted is None else tuple(_rounded(*pair) for pair in zip(native, lifted, strict=True))
    said = relation(*judge, finding.budget or 0.0, bool(ratios)) if finding.grade == "refuted" else ""
    return Spread(ratios, in_ulps(*native), shades, shape, rounded, said)


def _finite(array: np.ndarray) -> np.ndarray:
    """JSON has neither NaN nor infinity."""
    return np.nan_to_num(array, nan=0.0)


def relation(left: np.ndarray, right: np.ndarray, budget: float, stepped: bool = False) -> str:
    """What `right` is of `left`, where one of a few simple relations holds everywhere within the budget; else empty.

    Args:
        left: the reference's values.
        right: the candidate's, of the same shape.
        budget: how far rounding explains a difference.
        stepped: whether the first axis is the train step.
    """
    a, b = left.astype("float64"), right.astype("float64")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return ""
    if stepped and len(b) > 1 and np.array_equal(b, np.broadcast_to(b[:1], b.shape)):
        return "unchanged by every step"
    if not b.any():
        return "all zero"
    if a.size < 2 or np.ptp(a) <= budget:
        return ""
    factor = float(np.vdot(a, b) / np.vdot(a, a))
    offset = float(np.mean(b - a))
    for words, expected in (
        (f"{factor:.6g} times the reference", factor * a),
        (f"the reference plus {offset:.6g}", a + offset),
        ("the reference transposed", np.swapaxes(a, -1, -2) if a.ndim > 1 and a.shape[-1] == a.shape[-2] else None),
        ("the reference's values in another order", None if stepped else _reordered(a, b)),
    ):
        if expected is not None and float(np.max(np.abs(expected - b))) <= budget:
            return words
    return ""


def _reordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The values of `a`, placed by size where those of `b` lie by size."""
    placed = np.empty(a.size)
    placed[np.argsort(b, axis=None, kind="stable")] = np.sort(a, axis=None)
    return placed.reshape(a.shape)


def in_ulps(left: np.ndarray, right: np.ndarray) -> tuple[int, ...]:
    """How many elements differ by up to so many ulps of the left one; bins as in `ULPS`, the last open."""
    a, b = left.astype("float64"), right.astype("float64")
    with np.errstate(all="ignore"):  # nothing is any number of ulps away from zero
        spacing = ulp(left.dtype) * np.exp2(np.floor(np.log2(np.abs(a))))
        apart = np.where(a == b, 0.0, np.abs(a - b) / np.where(spacing > 0, spacing, np.nan))
    bins = np.digitize(np.nan_to_num(apart, nan=np.inf), ULPS, right=True)
    return tuple(int(count) for count in np.bincount(bins.ravel(), minlength=len(ULPS) + 1))


def shaded(apart: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Differences as a matrix of shades, the largest of every block, and the shape of the matrix before."""
    matrix = apart.reshape(-1, apart.shape[-1]) if apart.ndim > 1 else apart.reshape(1, -1)
    if not matrix.size:
        return (), ()
    largest = float(np.max(matrix)) or 1.0
    blocks = np.maximum.reduceat(matrix, _starts(matrix.shape[0], ROWS), axis=0)
    blocks = np.maximum.reduceat(blocks, _starts(matrix.shape[1], COLUMNS), axis=1)
    top = len(SHADES) - 1
    decades = np.log10(np.where(blocks > 0, blocks, largest)) - np.log10(largest)
    levels = np.where(blocks > 0, np.clip(top + np.ceil(3 * decades), 1, top), 0).astype(int)
    return tuple("".join(SHADES[level] for level in row) for row in levels), tuple(matrix.shape)


def _starts(size: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, size, num=min(size, most), endpoint=False, dtype=int))


def _rounded(native: np.ndarray, lifted: np.ndarray) -> float:
    """How far a native run is from its own float64 run, in ulps of the largest value."""
    apart = float(np.max(np.abs(native.astype("float64") - lifted), initial=0.0))
    size = ulp(native.dtype) * float(np.max(np.abs(lifted), initial=0.0))
    return apart / size if size > 0 and np.isfinite(apart) else 0.0
