"""When a named rewrite of `algebra.py` applies to an equation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.programs.prover.algebra import (
    LINEAR,
    MASKS,
    POSITIVE,
    PRODUCTS,
    SUMS,
    TWO_PASS,
    Algebra,
    Product,
    Sum,
    Total,
    powers,
    rounded,
)
from equiv.programs.prover.terms import Value, dtype_name, elementwise, number


def operation(algebra: Algebra, name: str, params: dict[str, Any], ins: Sequence[Value], aval: Any) -> Value | None:
    """An elementwise operation in normal form, where a rewrite in force has one."""
    shape, dtype, rules = tuple(aval.shape), dtype_name(aval.dtype), algebra.rules
    if POSITIVE in rules and (known := _sign(algebra, name, ins, shape, dtype)) is not None:
        return algebra.by(known, POSITIVE)
    if "float" not in dtype:
        return None
    if PRODUCTS in rules and (found := powers(name, params, ins)) is not None:
        return algebra.by(algebra.product(*found, shape, dtype), PRODUCTS)
    if SUMS in rules and name in ("add", "sub", "add_any"):
        terms = [(ins[0], 1.0), (ins[1], -1.0 if name == "sub" else 1.0)]
        return algebra.by(algebra.sum(0.0, terms, shape, dtype), SUMS)
    if {MASKS, PRODUCTS} <= rules and ins and ins[0].dtype == "bool":
        if name == "convert_element_type":
            return algebra.by(algebra.product(1.0, [(ins[0], 1.0)], shape, dtype), MASKS, PRODUCTS)
        if name == "select_n" and len(ins) == 3:
            return algebra.by(_select(algebra, ins, shape, dtype), MASKS, PRODUCTS)
    return None


def _select(algebra: Algebra, ins: Sequence[Value], shape: tuple[int, ...], dtype: str) -> Value | None:
    mask, false, true = ins
    if false.constant == 0:
        return algebra.product(1.0, [(mask, 1.0), (true, 1.0)], shape, dtype)
    if true.constant == 0:
        opposite = elementwise(("not", []), [mask], mask.shape, "bool", commutes=False)
        return algebra.product(1.0, [(opposite, 1.0), (false, 1.0)], shape, dtype)
    return None


def _sign(algebra: Algebra, name: str, ins: Sequence[Value], shape: tuple[int, ...], dtype: str) -> Value | None:
    """Comparisons of a variance with zero, or with itself."""
    if name not in ("max", "gt", "lt", "eq", "ge") or len(ins) != 2:
        return None
    left, right = ins
    if name == "eq" and left.name == right.name and _variance(algebra, left):
        return number(np.asarray(True), shape)
    if left.constant == 0 and _variance(algebra, right):
        return {"max": right}.get(name) or number(np.asarray(name == "lt"), shape)
    if right.constant == 0 and _variance(algebra, left):
        return {"max": left}.get(name) or number(np.asarray(name in ("gt", "ge")), shape)
    return None


def _variance(algebra: Algebra, value: Value) -> bool:
    """Whether a value is `mean(x**2) - mean(x)**2`."""
    inside = algebra.definition(value)
    if not isinstance(inside, Sum) or inside.constant or len(inside.terms) != 2:
        return False
    (one, first), (other, second) = sorted(inside.terms, key=lambda term: -term[1])
    squares, square = algebra.made.get(one.term), algebra.definition(other)
    if not isinstance(squares, Total) or not isinstance(square, Product) or len(square.factors) != 1:
        return False
    root, power = square.factors[0]
    total = algebra.made.get(root.term)
    if not isinstance(total, Total) or power != 2 or total.over != squares.over or not _alike(one, root):
        return False
    squared = algebra.product(1.0, [(total.value, 2.0)], total.value.shape, total.value.dtype)
    count = total.count
    return (
        squared.name == squares.value.name
        and rounded(first * count) == 1
        and rounded(second * count**2 * square.constant) == -1
    )


Reduce = Callable[[Value], Value | None]
"""Sums a value over the axes in question."""


def total(algebra: Algebra, value: Value, over: Sequence[int], reduce: Reduce, aval: Any) -> Value | None:
    """A sum over axes, with what is the same along them taken out."""
    inside, shape, dtype = algebra.definition(value), tuple(aval.shape), dtype_name(aval.dtype)
    if {LINEAR, PRODUCTS} <= algebra.rules and isinstance(inside, Product):
        fixed = [all(one.axes[axis] is None for axis in over) if one.shape else True for one, _ in inside.factors]
        inner = [factor for factor, same in zip(inside.factors, fixed, strict=True) if not same]
        if inner and (any(fixed) or rounded(inside.constant) != 1):
            algebra.applied |= {LINEAR, PRODUCTS}
            rest = algebra.product(1.0, inner, value.shape, value.dtype)
            summed = total(algebra, rest, over, reduce, aval)
            if summed is None:
                return None
            kept = [axis for axis in range(len(value.shape)) if axis not in over]
            outer = [
                (_only(one, kept), power) for (one, power), same in zip(inside.factors, fixed, strict=True) if same
            ]
            return algebra.product(inside.constant, [(summed, 1.0), *outer], shape, dtype)
    if TWO_PASS in algebra.rules and (found := _two_pass(algebra, value, over, reduce, aval)) is not None:
        return algebra.by(found, TWO_PASS)
    result = reduce(value)
    if result is not None and result.term != value.term:
        _remember(algebra, value, over, result)
    return result


def contraction(
    algebra: Algebra, ins: Sequence[Value], dot: Callable[[Sequence[Value]], Value | None], aval: Any
) -> Value | None:
    """A product of matrices, with constant scales taken out."""
    if not {LINEAR, PRODUCTS} <= algebra.rules:
        return dot(ins)
    scale, bare = 1.0, []
    for value in ins:
        inside = algebra.definition(value)
        if isinstance(inside, Product) and inside.constant != 1:
            algebra.applied |= {LINEAR, PRODUCTS}
            scale *= inside.constant
            value = algebra.product(1.0, inside.factors, value.shape, value.dtype)
        bare.append(value)
    result = dot(bare)
    if result is None or scale == 1:
        return result
    return algebra.product(scale, [(result, 1.0)], tuple(aval.shape), dtype_name(aval.dtype))


def _alike(one: Value, other: Value) -> bool:
    """Whether two views of equally laid out terms are the same view."""
    rank = max(len(one.shape), len(other.shape))
    return (one.axes or (None,) * rank) == (other.axes or (None,) * rank)


def _only(value: Value, kept: Sequence[int]) -> Value:
    if not value.shape:
        return value
    axes = tuple(value.axes[axis] for axis in kept)
    return Value(value.term, axes, tuple(value.shape[axis] for axis in kept), value.dtype, value.constant)


def _two_pass(algebra: Algebra, value: Value, over: Sequence[int], reduce: Reduce, aval: Any) -> Value | None:
    """`sum((x - mean(x))**2)` as `sum(x**2) - sum(x)**2 / n`."""
    square = algebra.definition(value)
    if not isinstance(square, Product) or len(square.factors) != 1 or square.factors[0][1] != 2:
        return None
    centred = algebra.definition(square.factors[0][0])
    if not isinstance(centred, Sum) or centred.constant or len(centred.terms) != 2:
        return None
    count = int(np.prod([value.shape[axis] for axis in over], dtype=int))
    for (x, one), (mean, other) in (centred.terms, centred.terms[::-1]):
        summed = total(algebra, x, over, reduce, aval)
        if summed is None or mean.term != summed.term or rounded(-other / one * count) != 1:
            continue
        kept = [axis for axis in range(len(value.shape)) if axis not in over]
        if not _alike(_only(mean, kept), summed) or any(mean.axes[axis] is not None for axis in over if mean.shape):
            continue  # the mean of other rows or columns
        squares = total(algebra, algebra.product(1.0, [(x, 2.0)], value.shape, value.dtype), over, reduce, aval)
        if squares is None:
            continue
        squared = algebra.product(1.0, [(summed, 2.0)], summed.shape, summed.dtype)
        scale = square.constant * one**2
        return algebra.sum(
            0.0, [(squares, scale), (squared, -scale / count)], tuple(aval.shape), dtype_name(aval.dtype)
        )
    return None


def _remember(algebra: Algebra, value: Value, over: Sequence[int], result: Value) -> None:
    """Keep what a sum over axes was made of, on the axes of the summed term."""
    gone = tuple(sorted(axis for axis in (value.axes[index] for index in over) if axis is not None))
    rank = sum(axis is not None for axis in value.axes)
    sizes = dict(zip(value.axes, value.shape, strict=True))
    own = Value(value.term, tuple(range(rank)), tuple(sizes[axis] for axis in range(rank)), value.dtype)
    algebra.made.setdefault(result.term, Total(own, gone))
