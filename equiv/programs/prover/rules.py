"""The named rewrites of `conditions.py` applied to equations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.programs.primitives import ADDITIONS
from equiv.programs.prover.algebra import Algebra, Product, ReducedSum, Sum, as_powers, round_coefficient
from equiv.programs.prover.conditions import LINEAR, MASKS, POSITIVE, REORDERED_PRODUCTS, REORDERED_SUMS, TWO_PASS
from equiv.programs.prover.masks import negate_mask, number_masked_weight
from equiv.programs.prover.one_hot import NEEDED, look_up_in_sum
from equiv.programs.prover.terms import TermView, constant_view, dtype_name, is_infinite

ADDITIVE = ADDITIONS | {"sub"}


def rewrite_operation(
    algebra: Algebra, name: str, params: dict[str, Any], ins: Sequence[TermView], aval: Any
) -> TermView | None:
    """Rewrite an elementwise operation to normal form; None where no enabled rewrite applies."""
    shape, dtype, rules = tuple(aval.shape), dtype_name(aval.dtype), algebra.rules
    # Before the dtype is asked: what a variance is compared to gives a truth value.
    if POSITIVE in rules and (known := _rewrite_sign(algebra, name, ins, shape, dtype)) is not None:
        return algebra.record(known, POSITIVE)
    # Whole numbers overflow and divide with a remainder: no rewrite of real arithmetic holds for them.
    if "float" not in dtype or any(map(is_infinite, ins)):
        return None
    if REORDERED_PRODUCTS in rules and (found := as_powers(name, params, ins)) is not None:
        return algebra.record(algebra.product(*found, shape, dtype), REORDERED_PRODUCTS)
    if REORDERED_SUMS in rules and name in ADDITIVE:
        terms = [(ins[0], 1.0), (ins[1], -1.0 if name == "sub" else 1.0)]
        return algebra.record(algebra.sum(0.0, terms, shape, dtype), REORDERED_SUMS)
    if name == "exp" and (found := number_masked_weight(algebra, ins[0], aval)) is not None:
        return found
    # A mask is written as a factor of a product in normal form, and so needs both rewrites.
    if {MASKS, REORDERED_PRODUCTS} <= rules and ins and ins[0].dtype == "bool":
        if name == "convert_element_type":
            return algebra.record(algebra.product(1.0, [(ins[0], 1.0)], shape, dtype), MASKS, REORDERED_PRODUCTS)
        if name == "select_n" and len(ins) == 3:
            return algebra.record(_rewrite_select(algebra, ins, shape, dtype), MASKS, REORDERED_PRODUCTS)
    return None


def _rewrite_select(algebra: Algebra, ins: Sequence[TermView], shape: tuple[int, ...], dtype: str) -> TermView | None:
    # `select_n` has the operand for false first.
    mask, false, true = ins
    if false.constant == 0:
        return algebra.product(1.0, [(mask, 1.0), (true, 1.0)], shape, dtype)
    if true.constant == 0:
        return algebra.product(1.0, [(negate_mask(algebra, mask), 1.0), (false, 1.0)], shape, dtype)
    return None


def _rewrite_sign(
    algebra: Algebra, name: str, ins: Sequence[TermView], shape: tuple[int, ...], dtype: str
) -> TermView | None:
    """Rewrite comparisons of a variance with zero or with itself."""
    if name not in ("max", "gt", "lt", "eq", "ge") or len(ins) != 2:
        return None
    left, right = ins
    if name == "eq" and left.name == right.name and _is_variance(algebra, left):
        return constant_view(np.asarray(True), shape)
    if left.constant == 0 and _is_variance(algebra, right):
        return {"max": right}.get(name) or constant_view(np.asarray(name == "lt"), shape)
    if right.constant == 0 and _is_variance(algebra, left):
        return {"max": left}.get(name) or constant_view(np.asarray(name in ("gt", "ge")), shape)
    return None


def _is_variance(algebra: Algebra, value: TermView) -> bool:
    """Whether a value is `mean(x**2) - mean(x)**2`, or a positive multiple of it."""
    inside = algebra.definition(value)
    if not isinstance(inside, Sum) or inside.constant or len(inside.terms) != 2:
        return False
    # The squares have the positive coefficient, the square of the mean the negative one.
    (one, first), (other, second) = sorted(inside.terms, key=lambda term: -term[1])
    squares, square = algebra.made.get(one.term), algebra.definition(other)
    if not isinstance(squares, ReducedSum) or not isinstance(square, Product) or len(square.factors) != 1:
        return False
    root, power = square.factors[0]
    total = algebra.made.get(root.term)
    if not isinstance(total, ReducedSum) or power != 2 or total.over != squares.over or not _same_view(one, root):
        return False
    # Both coefficients have to fit: with twice the square of the mean the difference can be negative.
    squared = algebra.product(1.0, [(total.value, 2.0)], total.value.shape, total.value.dtype)
    ratio = second * square.constant * total.count / first if first > 0 else 0.0
    return squared.name == squares.value.name and round_coefficient(ratio) == -1


def _merge_sums(algebra: Algebra, value: TermView, over: Sequence[int]) -> tuple[TermView, Sequence[int]] | None:
    """Rewrite `sum(c * sum(x))` as one sum of `c * x` over the axes of both; None where there is no inner sum."""
    inside = algebra.definition(value)
    factors = inside.factors if isinstance(inside, Product) else ((value, 1.0),)
    sums = [index for index, (one, power) in enumerate(factors) if power == 1 and one.shape and _is_sum(algebra, one)]
    # Of two inner sums either could be the one, and the name would depend on which is.
    if len(sums) != 1 or all(factors[sums[0]][0].axes[axis] is None for axis in over):
        return None
    inner, total = factors[sums[0]][0], algebra.made[factors[sums[0]][0].term]
    assert isinstance(total, ReducedSum)
    kept = [axis for axis in range(len(total.value.shape)) if axis not in total.over]
    shape = (*value.shape, *(total.value.shape[axis] for axis in total.over))
    axes = (*(None if axis is None else kept[axis] for axis in inner.axes), *total.over)
    wide = [(TermView(total.value.term, axes, shape, inner.dtype), 1.0)]
    for index, (one, power) in enumerate(factors):
        if index != sums[0]:
            own = (*one.axes, *(None for _ in total.over)) if one.shape else ()
            wide.append((TermView(one.term, own, shape if one.shape else (), one.dtype, one.constant), power))
    constant = inside.constant if isinstance(inside, Product) else 1.0
    return algebra.product(constant, wide, shape, value.dtype), (*over, *range(len(value.shape), len(shape)))


def _is_sum(algebra: Algebra, value: TermView) -> bool:
    return isinstance(algebra.made.get(value.term), ReducedSum)


SumOverAxes = Callable[[TermView, Sequence[int]], TermView | None]
"""Sums a value over axes."""


def rewrite_sum(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: SumOverAxes, aval: Any
) -> TermView | None:
    """Rewrite a sum over axes: factors that are constant along them are moved out."""
    shape, dtype = tuple(aval.shape), dtype_name(aval.dtype)
    if (looked_up := look_up_in_sum(algebra, value, over)) is not None:
        axis, result = looked_up
        rest = [place - (place > axis) for place in over if place != axis]
        return algebra.record(rewrite_sum(algebra, result, rest, reduce, aval) if rest else result, *NEEDED)
    if {LINEAR, REORDERED_PRODUCTS} <= algebra.rules:
        found = _move_factors_out(algebra, value, over)
        if found is not None:
            scale, rest, outer = found
            summed = rewrite_sum(algebra, rest, over, reduce, aval)
            product = None if summed is None else algebra.product(scale, [(summed, 1.0), *outer], shape, dtype)
            return algebra.record(product, LINEAR, REORDERED_PRODUCTS)
        if (merged := _merge_sums(algebra, value, over)) is not None:
            return algebra.record(rewrite_sum(algebra, *merged, reduce, aval), LINEAR, REORDERED_PRODUCTS)
    if TWO_PASS in algebra.rules:
        if _find_mean(algebra, value, over, reduce, aval) is not None:
            return algebra.record(constant_view(np.zeros((), dtype), shape), TWO_PASS)
        if (found := _rewrite_two_pass(algebra, value, over, reduce, aval)) is not None:
            return algebra.record(found, TWO_PASS)
    return reduce(value, over)


Moved = tuple[float, TermView, list[tuple[TermView, float]]]
"""A number and factors that were moved out of a sum, and between them what is left inside."""


def _move_factors_out(algebra: Algebra, value: TermView, over: Sequence[int]) -> Moved | None:
    """Move constants out of a sum, and factors that are the same along its axes; None where there are none."""
    repeats = [axis for axis in over if value.axes[axis] is None and value.shape[axis] > 1]
    if repeats and value.constant is None:
        # As often as it is repeated; an axis of size one is left, which sums to itself.
        sizes = tuple(1 if axis in repeats else size for axis, size in enumerate(value.shape))
        once = TermView(value.term, value.axes, sizes, value.dtype)
        return float(np.prod([value.shape[axis] for axis in repeats])), once, []
    inside = algebra.definition(value)
    if isinstance(inside, Product):
        fixed = [all(one.axes[axis] is None for axis in over) if one.shape else True for one, _ in inside.factors]
        inner = [factor for factor, same in zip(inside.factors, fixed, strict=True) if not same]
        # Something has to stay inside, or there is nothing to sum.
        if inner and (any(fixed) or round_coefficient(inside.constant) != 1):
            kept = [axis for axis in range(len(value.shape)) if axis not in over]
            outer = [
                (_keep_axes(one, kept), power) for (one, power), same in zip(inside.factors, fixed, strict=True) if same
            ]
            return inside.constant, algebra.product(1.0, inner, value.shape, value.dtype), outer
    if isinstance(inside, Sum):
        scale, base = algebra.unit(value)
        return None if scale == 1 else (scale, base, [])
    return None


def rewrite_contraction(
    algebra: Algebra, ins: Sequence[TermView], dot: Callable[[Sequence[TermView]], TermView | None], aval: Any
) -> TermView | None:
    """Rewrite a contraction: constant scales are moved out."""
    if not {LINEAR, REORDERED_PRODUCTS} <= algebra.rules:
        return dot(ins)
    # Only constants move: a factor that varies along the contracted axis has to stay.
    (one, left), (other, right) = (algebra.unit(value) for value in ins)
    result = dot((left, right))
    if result is None or one == other == 1:
        return result
    product = algebra.product(one * other, [(result, 1.0)], tuple(aval.shape), dtype_name(aval.dtype))
    return algebra.record(product, LINEAR, REORDERED_PRODUCTS)


def _same_view(one: TermView, other: TermView) -> bool:
    """Whether two views of terms with the same layout are the same view."""
    rank = max(len(one.shape), len(other.shape))
    return (one.axes or (None,) * rank) == (other.axes or (None,) * rank)


def _keep_axes(value: TermView, kept: Sequence[int]) -> TermView:
    if not value.shape:
        return value
    axes = tuple(value.axes[axis] for axis in kept)
    return TermView(value.term, axes, tuple(value.shape[axis] for axis in kept), value.dtype, value.constant)


def _find_mean(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: SumOverAxes, aval: Any
) -> tuple[float, TermView, TermView] | None:
    """Find `c`, `x` and its sum such that a value is `c * (x - mean(x))`, the mean along these axes; or None."""
    centred = algebra.definition(value)
    if not isinstance(centred, Sum) or len(centred.terms) < 2:
        return None
    count = int(np.prod([value.shape[axis] for axis in over], dtype=int))
    kept = [axis for axis in range(len(value.shape)) if axis not in over]
    # Terms of a sum have no order: any of them can be the mean.
    for index, (mean, weight) in enumerate(centred.terms):
        total = algebra.made.get(mean.term)
        if not isinstance(total, ReducedSum) or total.count != count:
            continue
        if any(mean.axes[axis] is not None for axis in over if mean.shape):
            continue
        others, scale = [*centred.terms[:index], *centred.terms[index + 1 :]], -weight * count
        # Quickly, since a sum can have many terms: those of what is summed have to be the others.
        if len(others) != algebra.count_terms(total.value):
            continue
        terms = [(one, coefficient / scale) for one, coefficient in others]
        x = algebra.sum(centred.constant / scale, terms, value.shape, value.dtype)
        summed = None if x.term != total.value.term else reduce(x, over)
        # Not the mean of other rows or columns.
        if summed is not None and summed.term == mean.term and _same_view(_keep_axes(mean, kept), summed):
            return scale, x, summed
    return None


def _rewrite_two_pass(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: SumOverAxes, aval: Any
) -> TermView | None:
    """`sum((x - mean(x))**2)` as `sum(x**2) - sum(x)**2 / n`."""
    square = algebra.definition(value)
    if not isinstance(square, Product) or len(square.factors) != 1 or square.factors[0][1] != 2:
        return None
    found = _find_mean(algebra, square.factors[0][0], over, reduce, aval)
    if found is None:
        return None
    scale, x, summed = found
    count = int(np.prod([value.shape[axis] for axis in over], dtype=int))
    squares = rewrite_sum(algebra, algebra.product(1.0, [(x, 2.0)], value.shape, value.dtype), over, reduce, aval)
    if squares is None:
        return None
    squared = algebra.product(1.0, [(summed, 2.0)], summed.shape, summed.dtype)
    weight = square.constant * scale**2
    return algebra.sum(0.0, [(squares, weight), (squared, -weight / count)], tuple(aval.shape), dtype_name(aval.dtype))


def record_sum(algebra: Algebra, value: TermView, over: Sequence[int], result: TermView) -> None:
    """Record what a sum over axes is a sum of, on the axes of the summed term."""
    # A sum over unit axes is the value itself, and no new term to record.
    if result.term == value.term:
        return
    gone = tuple(sorted(axis for axis in (value.axes[index] for index in over) if axis is not None))
    rank = sum(axis is not None for axis in value.axes)
    sizes = dict(zip(value.axes, value.shape, strict=True))
    own = TermView(value.term, tuple(range(rank)), tuple(sizes[axis] for axis in range(rank)), value.dtype)
    algebra.made.setdefault(result.term, ReducedSum(own, gone))
