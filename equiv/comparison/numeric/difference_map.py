"""Spread of the worst differences of a check over their elements: over steps, in ulps, as a map. NumPy only."""

import math
from dataclasses import replace

import numpy as np

from equiv.comparison.numeric import arrays as plain
from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import finite_difference
from equiv.comparison.numeric.budgets import output_budgets, over_budget
from equiv.comparison.numeric.held_outputs import array_at_hand
from equiv.comparison.observation import Comparison
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.output_name import TRAINING
from equiv.core.results import SHADES, ULP_BINS, CheckResult, Finding, Spread
from equiv.programs.probes import ulp, widen_array

MAX_SPREADS = 3
"""Findings of a check whose spread is kept where it is not proved; one where it is, so that results stay small."""

MAP_ROWS, MAP_COLUMNS = 16, 40
"""Largest number of blocks of a map."""


def add_spreads(comparison: Comparison, check: CheckResult) -> CheckResult:
    """Add spreads to the worst findings of a check."""
    chosen = {item.place: finding_spread(comparison, item) for item in worst_findings(check)}
    findings = tuple(replace(item, spread=chosen.get(item.place)) for item in check.findings)
    return replace(check, findings=findings)


def worst_findings(check: CheckResult) -> list[Finding]:
    """Select the findings of a check whose spread is shown."""
    measured = sorted((item for item in check.findings if item.error), key=_budget_ratio, reverse=True)
    unproved = [item for item in measured if not item.grade.startswith("proved")]
    return unproved[:MAX_SPREADS] or measured[:1]


def _budget_ratio(finding: Finding) -> float:
    return math.inf if finding.ratio is None else finding.ratio


def finding_spread(comparison: Comparison, finding: Finding) -> Spread | None:
    """Measure how one finding's difference is spread; None where it is not of two arrays of one shape."""
    ours, theirs = (side.samples.get(finding.probe) for side in (comparison.reference, comparison.candidate))
    output = finding.output
    if output is None or ours is None or theirs is None or not (output in theirs.native and output in ours.native):
        return None
    if any(array_at_hand(side.native, output) is None for side in (ours, theirs)):
        return None  # large, and proved: not worth one more run
    native = ours.native[output], theirs.native[output]
    if plain.type_mismatch(*native) or str(native[0].dtype) not in INEXACT_DTYPES:
        return None
    float64 = plain.float64_pair(ours, theirs, output, output)
    with np.errstate(all="ignore"):
        return _measure_spread(comparison, finding, native, float64)


def _measure_spread(
    comparison: Comparison, finding: Finding, native: ArrayPair, float64: ArrayPair | None
) -> Spread | None:
    in_float64 = float64 is not None and finding.precision == "float64"
    judge = float64 if float64 is not None and in_float64 else native
    difference = _replace_nan(finite_difference(*(widen_array(array) for array in judge)))
    if not difference.size or difference[finding.index] != finding.error:
        return None  # a formula was judged, not these arrays
    assert finding.output is not None
    budgets = output_budgets(comparison, finding.probe, finding.output, judge, in_float64).elements
    # A native budget may be larger, for the reference's own distance from its float64 run.
    budgets = budgets * max(1.0, (finding.budget or 0.0) / float(budgets[finding.index] or 1.0))
    ratios: tuple[float, ...] = ()
    if finding.output.program == TRAINING and difference.ndim:
        over = over_budget(difference, budgets)
        ratios = tuple(float(np.max(step, initial=0.0)) for step in over)
        difference = difference[int(np.argmax(ratios))]
        ratios = tuple(ratio if math.isfinite(ratio) else -1.0 for ratio in ratios)
    shades, shape = ((), ()) if finding.grade.startswith("proved") else shade_map(difference)
    rounded = () if float64 is None else tuple(_rounding_in_ulps(*pair) for pair in zip(native, float64, strict=True))
    relation = (
        describe_relation(*judge, budgets, finding.output.program == TRAINING) if finding.grade == "refuted" else ""
    )
    return Spread(ratios, ulp_histogram(*native), shades, shape, rounded, relation)


def _replace_nan(array: np.ndarray) -> np.ndarray:
    """Replace NaN and infinity, which JSON lacks, by finite numbers."""
    return np.nan_to_num(array, nan=0.0)


def describe_relation(left: np.ndarray, right: np.ndarray, budgets: np.ndarray | float, stepped: bool = False) -> str:
    """Describe `right` in terms of `left`, if a simple relation holds everywhere within the budget; else empty.

    Args:
        left: the reference's values.
        right: the candidate's, of the same shape.
        budgets: how far rounding explains a difference, of every element or of all.
        stepped: whether the first axis is the train step.
    """
    a, b = widen_array(left), widen_array(right)
    if a.dtype.kind == "c":
        return _describe_complex(a, b, budgets)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return ""
    if stepped and len(b) > 1 and np.array_equal(b, np.broadcast_to(b[:1], b.shape)):
        return "unchanged by every step"
    if not b.any():
        return "all zero"
    if a.size < 2 or np.ptp(a) <= np.max(budgets):
        return ""
    factor = float(np.vdot(a, b) / np.vdot(a, a))
    offset = float(np.mean(b - a))
    for words, expected in (
        (f"{factor:.6g} times the reference", factor * a),
        (f"the reference plus {offset:.6g}", a + offset),
        ("the reference transposed", np.swapaxes(a, -1, -2) if a.ndim > 1 and a.shape[-1] == a.shape[-2] else None),
        ("the reference's values in another order", None if stepped else _reordered(a, b)),
    ):
        if expected is not None and bool(np.all(np.abs(expected - b) <= budgets)):
            return words
    return ""


def _describe_complex(a: np.ndarray, b: np.ndarray, budgets: np.ndarray | float) -> str:
    for words, expected in (
        ("all zero", np.zeros_like(a)),
        ("the complex conjugate of the reference", np.conj(a)),
        ("the reference with real and imaginary parts swapped", 1j * np.conj(a)),
        ("the reference without its imaginary part", np.real(a)),
    ):
        if bool(np.all(np.abs(expected - b) <= budgets)):
            return words
    return ""


def _reordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Reorder the values of `a` so that their ranks are those of `b`."""
    placed = np.empty(a.size)
    placed[np.argsort(b, axis=None, kind="stable")] = np.sort(a, axis=None)
    return placed.reshape(a.shape)


def ulp_histogram(left: np.ndarray, right: np.ndarray) -> tuple[int, ...]:
    """Count elements by their difference in ulps of the left one; bins as in `ULP_BINS`, the last open."""
    a, b = widen_array(left), widen_array(right)
    with np.errstate(all="ignore"):  # zero has no ulp: differences from it go to the last bin
        spacing = ulp(left.dtype) * np.exp2(np.floor(np.log2(np.abs(a))))
        difference = np.where(a == b, 0.0, np.abs(a - b) / np.where(spacing > 0, spacing, np.nan))
    bins = np.digitize(np.nan_to_num(difference, nan=np.inf), ULP_BINS, right=True)
    return tuple(int(count) for count in np.bincount(bins.ravel(), minlength=len(ULP_BINS) + 1))


def shade_map(difference: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Reduce differences to a matrix of shades, the largest of every block; also give the shape before."""
    matrix = difference.reshape(-1, difference.shape[-1]) if difference.ndim > 1 else difference.reshape(1, -1)
    if not matrix.size:
        return (), ()
    largest = float(np.max(matrix)) or 1.0
    blocks = np.maximum.reduceat(matrix, _block_starts(matrix.shape[0], MAP_ROWS), axis=0)
    blocks = np.maximum.reduceat(blocks, _block_starts(matrix.shape[1], MAP_COLUMNS), axis=1)
    top = len(SHADES) - 1
    decades = np.log10(np.where(blocks > 0, blocks, largest)) - np.log10(largest)
    levels = np.where(blocks > 0, np.clip(top + np.ceil(3 * decades), 1, top), 0).astype(int)
    return tuple("".join(SHADES[level] for level in row) for row in levels), tuple(matrix.shape)


def _block_starts(size: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, size, num=min(size, most), endpoint=False, dtype=int))


def _rounding_in_ulps(native: np.ndarray, float64: np.ndarray) -> float:
    """Measure how far a native run is from its own float64 run, in ulps of the largest value."""
    difference = float(np.max(np.abs(widen_array(native) - float64), initial=0.0))
    size = ulp(native.dtype) * float(np.max(np.abs(float64), initial=0.0))
    return difference / size if size > 0 and np.isfinite(difference) else 0.0
