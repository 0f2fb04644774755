"""Compare two arrays without a budget: shape, dtype, non-finite values, integers."""

import numpy as np

from equiv.comparison.numeric.blocks import equal_values
from equiv.comparison.observation import Sample
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.output_name import OutputName
from equiv.core.results import Finding
from equiv.programs.probes import widen_array

ArrayPair = tuple[np.ndarray, np.ndarray]
"""One output of the reference, and of the candidate."""


def float64_pair(ours: Sample, theirs: Sample, output: OutputName, other: OutputName) -> ArrayPair | None:
    """Both arrays of the float64 runs; None where a port has no such run or does not return the output in it."""
    if ours.float64 is None or theirs.float64 is None or output not in ours.float64 or other not in theirs.float64:
        return None
    return ours.float64[output], theirs.float64[other]


def type_mismatch(left: np.ndarray, right: np.ndarray) -> Finding | None:
    """Compare shapes, then dtypes, without broadcasting or casting; None where both are equal."""
    for what, one, two in (("shape", list(left.shape), list(right.shape)), ("dtype", left.dtype, right.dtype)):
        if one != two:
            return Finding("", "refuted", reference=str(one), candidate=str(two), note=f"{what} differs")
    return None


def element_text(value: np.generic) -> str:
    """An element in nine digits, whole numbers in all of theirs."""
    if str(value.dtype) not in INEXACT_DTYPES:
        return str(value)
    return f"{complex(value) if value.dtype.kind == 'c' else float(value):.9g}"


def nonfinite_finding(arrays: ArrayPair, names: tuple[str, str]) -> Finding | None:
    """Judge values that are not finite; None where both ports have the same ones at the same elements.

    Refuted where one port has another value at an element. An error where neither has a finite value: equal NaNs
    everywhere say nothing.

    Args:
        arrays: of one shape and dtype.
        names: of the reference and the candidate.
    """
    if str(arrays[0].dtype) not in INEXACT_DTYPES:
        return None
    one, other = (widen_array(array) for array in arrays)
    masks = ~np.isfinite(one), ~np.isfinite(other)
    counts = int(masks[0].sum()), int(masks[1].sum())
    apart = (masks[0] | masks[1]) & ~equal_values(one, other)
    if not apart.any() and (not one.size or counts[0] < one.size):
        return None
    shown = f"{names[0]} {counts[0]} of {one.size}, {names[1]} {counts[1]} of {one.size}"
    index = tuple(int(axis) for axis in np.argwhere(apart if apart.any() else masks[0])[0])
    if not apart.any():
        note = (
            f"both ports give values that are not finite ({shown}): nothing can be compared there. "
            "Keep the model finite: no root of a negative number, no step that is too large."
        )
    elif masks[0][index] and masks[1][index]:
        note = f"both give values that are not finite, but other ones ({shown})"
    else:
        side = names[0] if masks[0][index] else names[1]
        note = f"{side} gives values that are not finite where the other does not ({shown})"
    return Finding(
        "",
        "refuted" if apart.any() else "error",
        reference=str(arrays[0][index]),
        candidate=str(arrays[1][index]),
        index=index,
        nonfinite=counts,
        note=note,
    )


def compare_integers(left: np.ndarray, right: np.ndarray) -> Finding:
    """Compare integers or booleans: equal or not."""
    unequal = np.argwhere(left != right)
    if not len(unequal):
        return Finding("", "exact", error=0.0, budget=0.0, ratio=0.0, precision="native")
    index = tuple(int(axis) for axis in unequal[0])
    return Finding(
        "",
        "refuted",
        error=float(abs(int(left[index]) - int(right[index]))),
        budget=0.0,
        precision="native",
        reference=str(left[index]),
        candidate=str(right[index]),
        index=index,
        note=f"{len(unequal)} of {left.size} whole numbers differ",
    )
