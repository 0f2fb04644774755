"""Masked logits: a large negative number where a mask says so, before a softmax, whatever that number is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.core.grades import MASKED
from equiv.programs.prover.algebra import MASKS, REORDERED_PRODUCTS, REORDERED_SUMS, Algebra, Product, Sum
from equiv.programs.prover.terms import TermView, apply_elementwise, dtype_name, on_term, seen_through

LARGE = -1e4
"""What counts as large: float16 has nothing below -65504, and in float64 exp(-746) is 0."""

NEEDED = frozenset((MASKED, MASKS, REORDERED_PRODUCTS, REORDERED_SUMS))
"""A masked weight is the product of the mask and what is in its place, and the maximum a term of a sum."""


def record_masked(algebra: Algebra, ins: Sequence[TermView], result: TermView) -> None:
    """Record `where(m, x, c)` with a large negative `c`: the mask and `x`, on the axes of the result's term."""
    if not algebra.rules.issuperset(NEEDED) or "float" not in result.dtype:
        return
    mask, false, true = ins
    if _is_large(false) and true.constant is None:
        algebra.masked[result.term] = _pair(on_term((mask, true), result))
    elif _is_large(true) and false.constant is None:
        algebra.masked[result.term] = _pair(on_term((negate_mask(algebra, mask), false), result))


def negate_mask(algebra: Algebra, mask: TermView) -> TermView:
    """The opposite of a mask; of an opposite, the mask itself."""
    known = algebra.opposites.get(mask.term)
    if known is not None:
        return seen_through(mask, known)
    result = _apply(algebra, "not", [mask], mask.shape, "bool")
    if result.term in algebra.splits:
        return result
    (algebra.opposites[result.term],) = on_term([mask], result)
    return result


def number_masked_maximum(
    algebra: Algebra, value: TermView, reduce: Callable[[TermView], TermView | None]
) -> TermView | None:
    """Number the maximum of masked logits: of those that are kept; None where nothing is masked."""
    found = _read_masked(algebra, value) if algebra.rules.issuperset(NEEDED) else None
    if found is None:
        return None
    kept = _keep(algebra, *found, value.shape, value.dtype)
    result = reduce(kept)
    if result is None or result.term == kept.term:
        return None
    algebra.maxima.setdefault(result.term, kept.term)
    return algebra.record(result, *NEEDED)


def number_masked_weight(algebra: Algebra, value: TermView, aval: Any) -> TermView | None:
    """Number `exp(where(m, x, c) - max)` as `m * exp(x - max)`; None where nothing is masked."""
    inside = algebra.definition(value) if algebra.rules.issuperset(NEEDED) else None
    if not isinstance(inside, Sum):
        return None
    shape, dtype = tuple(aval.shape), dtype_name(aval.dtype)
    for index, (top, scale) in enumerate(inside.terms):
        if scale != -1 or top.term not in algebra.maxima:
            continue
        others = [*inside.terms[:index], *inside.terms[index + 1 :]]
        found = _read_masked(algebra, algebra.sum(inside.constant, others, shape, dtype))
        # The maximum of these very logits: then it is one of them, and far above what stands for the masked ones.
        if found is None or _keep(algebra, *found, shape, dtype).term != algebra.maxima[top.term]:
            continue
        mask, x = found
        below = algebra.sum(0.0, [(x, 1.0), (top, -1.0)], shape, dtype)
        weight = _apply(algebra, "exp", [below], shape, dtype)
        return algebra.record(algebra.product(1.0, [(mask, 1.0), (weight, 1.0)], shape, dtype), *NEEDED)
    return None


def _read_masked(algebra: Algebra, value: TermView) -> tuple[TermView, TermView] | None:
    """The mask and the logits of `where(m, x, c)`, `x + c * ~m` or `x + c * (1 - m)`; else None."""
    if value.term in algebra.masked:
        mask, x = algebra.masked[value.term]
        return seen_through(value, mask), seen_through(value, x)
    inside = algebra.definition(value)
    if not isinstance(inside, Sum):
        return None
    for index, (term, scale) in enumerate(inside.terms):
        factor = algebra.definition(term)
        if not isinstance(factor, Product) or len(factor.factors) != 1 or factor.factors[0][0].dtype != "bool":
            continue
        mask, others = factor.factors[0][0], [*inside.terms[:index], *inside.terms[index + 1 :]]
        if scale <= LARGE and inside.constant == 0:
            return negate_mask(algebra, mask), algebra.sum(0.0, others, value.shape, value.dtype)
        if scale >= -LARGE and _cancels(inside.constant, scale):
            return mask, algebra.sum(0.0, others, value.shape, value.dtype)
    return None


def _keep(algebra: Algebra, mask: TermView, x: TermView, shape: Sequence[int], dtype: str) -> TermView:
    """A name for the logits that a mask keeps, which does not depend on what stands for the others."""
    return _apply(algebra, "kept", [mask, x], shape, dtype)


def _apply(algebra: Algebra, name: str, ins: Sequence[TermView], shape: Sequence[int], dtype: str) -> TermView:
    def make(joined: list[TermView], own: tuple[int, ...]) -> TermView:
        return apply_elementwise((name, []), joined, own, dtype, commutes=False)

    return algebra.join(ins, tuple(shape), make)


def _cancels(constant: float, scale: float) -> bool:
    """Whether nothing is added where the mask keeps a logit."""
    return constant == -scale


def _is_large(value: TermView) -> bool:
    return value.constant is not None and bool(np.asarray(value.constant) <= LARGE)


def _pair(values: list[TermView]) -> tuple[TermView, TermView]:
    one, other = values
    return one, other
