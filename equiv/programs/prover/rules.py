"""The named rewrites of `algebra.py` applied to equations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.programs.primitives import ADDITIONS
from equiv.programs.prover.algebra import (
    LINEAR,
    MASKS,
    POSITIVE,
    REORDERED_PRODUCTS,
    REORDERED_SUMS,
    TWO_PASS,
    Algebra,
    Product,
    ReducedSum,
    Sum,
    as_powers,
    round_coefficient,
)
from equiv.programs.prover.terms import TermView, apply_elementwise, constant_view, dtype_name

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
    if "float" not in dtype:
        return None
    if REORDERED_PRODUCTS in rules and (found := as_powers(name, params, ins)) is not None:
        return algebra.record(algebra.product(*found, shape, dtype), REORDERED_PRODUCTS)
    if REORDERED_SUMS in rules and name in ADDITIVE:
        terms = [(ins[0], 1.0), (ins[1], -1.0 if name == "sub" else 1.0)]
        return algebra.record(algebra.sum(0.0, terms, shape, dtype), REORDERED_SUMS)
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
        opposite = apply_elementwise(("not", []), [mask], mask.shape, "bool", commutes=False)
        return algebra.product(1.0, [(opposite, 1.0), (false, 1.0)], shape, dtype)
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
    """Whether a value is `mean(x**2) - mean(x)**2`."""
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
    count = total.count
    return (
        squared.name == squares.value.name
        and round_coefficient(first * count) == 1
        and round_coefficient(second * count**2 * square.constant) == -1
    )


SumOverAxes = Callable[[TermView], TermView | None]
"""Sums a value over fixed axes."""


def rewrite_sum(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: SumOverAxes, aval: Any
) -> TermView | None:
    """Rewrite a sum over axes: factors that are constant along them are moved out."""
    inside, shape, dtype = algebra.definition(value), tuple(aval.shape), dtype_name(aval.dtype)
    if {LINEAR, REORDERED_PRODUCTS} <= algebra.rules and isinstance(inside, Product):
        fixed = [all(one.axes[axis] is None for axis in over) if one.shape else True for one, _ in inside.factors]
        inner = [factor for factor, same in zip(inside.factors, fixed, strict=True) if not same]
        # Something has to stay inside, or there is nothing to sum.
        if inner and (any(fixed) or round_coefficient(inside.constant) != 1):
            algebra.applied |= {LINEAR, REORDERED_PRODUCTS}
            rest = algebra.product(1.0, inner, value.shape, value.dtype)
            summed = rewrite_sum(algebra, rest, over, reduce, aval)
            if summed is None:
                return None
            kept = [axis for axis in range(len(value.shape)) if axis not in over]
            outer = [
                (_keep_axes(one, kept), power) for (one, power), same in zip(inside.factors, fixed, strict=True) if same
            ]
            return algebra.product(inside.constant, [(summed, 1.0), *outer], shape, dtype)
    if TWO_PASS in algebra.rules and (found := _rewrite_two_pass(algebra, value, over, reduce, aval)) is not None:
        return algebra.record(found, TWO_PASS)
    result = reduce(value)
    # A sum over unit axes is the value itself, and no new term to record.
    if result is not None and result.term != value.term:
        _record_sum(algebra, value, over, result)
    return result


def rewrite_contraction(
    algebra: Algebra, ins: Sequence[TermView], dot: Callable[[Sequence[TermView]], TermView | None], aval: Any
) -> TermView | None:
    """Rewrite a contraction: constant scales are moved out."""
    if not {LINEAR, REORDERED_PRODUCTS} <= algebra.rules:
        return dot(ins)
    # Only constants move: a factor that varies along the contracted axis has to stay.
    scale, bare = 1.0, []
    for value in ins:
        inside = algebra.definition(value)
        if isinstance(inside, Product) and inside.constant != 1:
            algebra.applied |= {LINEAR, REORDERED_PRODUCTS}
            scale *= inside.constant
            value = algebra.product(1.0, inside.factors, value.shape, value.dtype)
        bare.append(value)
    result = dot(bare)
    if result is None or scale == 1:
        return result
    return algebra.product(scale, [(result, 1.0)], tuple(aval.shape), dtype_name(aval.dtype))


def _same_view(one: TermView, other: TermView) -> bool:
    """Whether two views of terms with the same layout are the same view."""
    rank = max(len(one.shape), len(other.shape))
    return (one.axes or (None,) * rank) == (other.axes or (None,) * rank)


def _keep_axes(value: TermView, kept: Sequence[int]) -> TermView:
    if not value.shape:
        return value
    axes = tuple(value.axes[axis] for axis in kept)
    return TermView(value.term, axes, tuple(value.shape[axis] for axis in kept), value.dtype, value.constant)


def _rewrite_two_pass(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: SumOverAxes, aval: Any
) -> TermView | None:
    """`sum((x - mean(x))**2)` as `sum(x**2) - sum(x)**2 / n`."""
    square = algebra.definition(value)
    if not isinstance(square, Product) or len(square.factors) != 1 or square.factors[0][1] != 2:
        return None
    centred = algebra.definition(square.factors[0][0])
    if not isinstance(centred, Sum) or centred.constant or len(centred.terms) != 2:
        return None
    count = int(np.prod([value.shape[axis] for axis in over], dtype=int))
    # Terms of a sum have no order: either of the two can be the mean.
    for (x, one), (mean, other) in (centred.terms, centred.terms[::-1]):
        summed = rewrite_sum(algebra, x, over, reduce, aval)
        if summed is None or mean.term != summed.term or round_coefficient(-other / one * count) != 1:
            continue
        kept = [axis for axis in range(len(value.shape)) if axis not in over]
        if not _same_view(_keep_axes(mean, kept), summed) or any(
            mean.axes[axis] is not None for axis in over if mean.shape
        ):
            continue  # the mean of other rows or columns
        squares = rewrite_sum(algebra, algebra.product(1.0, [(x, 2.0)], value.shape, value.dtype), over, reduce, aval)
        if squares is None:
            continue
        squared = algebra.product(1.0, [(summed, 2.0)], summed.shape, summed.dtype)
        scale = square.constant * one**2
        return algebra.sum(
            0.0, [(squares, scale), (squared, -scale / count)], tuple(aval.shape), dtype_name(aval.dtype)
        )
    return None


def _record_sum(algebra: Algebra, value: TermView, over: Sequence[int], result: TermView) -> None:
    """Record what a sum over axes is a sum of, on the axes of the summed term."""
    gone = tuple(sorted(axis for axis in (value.axes[index] for index in over) if axis is not None))
    rank = sum(axis is not None for axis in value.axes)
    sizes = dict(zip(value.axes, value.shape, strict=True))
    own = TermView(value.term, tuple(range(rank)), tuple(sizes[axis] for axis in range(rank)), value.dtype)
    algebra.made.setdefault(result.term, ReducedSum(own, gone))
