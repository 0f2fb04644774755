"""Masked logits: a large negative number where a mask says so, before a softmax, whatever that number is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.core.grades import CONSTANT_MASK, MASKED
from equiv.programs.prover.algebra import Algebra, Product, Sum
from equiv.programs.prover.conditions import MASKS, REORDERED_PRODUCTS, REORDERED_SUMS
from equiv.programs.prover.known_arrays import known_array, name_by_content, on_own_axes
from equiv.programs.prover.terms import TermView, apply_elementwise, dtype_name, on_term, seen_through

LARGE = -1e4
"""What counts as large: float16 has nothing below -65504, and in float64 exp(-746) is 0."""

FAR = -1e30
"""What is far below all logits of a model that stays as far from overflow as other rewrites want it."""

NEEDED = frozenset((MASKS, REORDERED_PRODUCTS, REORDERED_SUMS))
"""A masked weight is the product of the mask and what is in its place, and the maximum a term of a sum."""


MASK_RULES = frozenset((MASKED, CONSTANT_MASK))
"""One of them each time; where a mask is known, the other does not apply."""


def _is_enabled(algebra: Algebra) -> bool:
    return algebra.rules.issuperset(NEEDED) and not algebra.rules.isdisjoint(MASK_RULES)


def record_masked(algebra: Algebra, ins: Sequence[TermView], result: TermView) -> None:
    """Record `where(m, x, c)` with a large negative `c`: the mask and `x`, on the axes of the result's term."""
    if not _is_enabled(algebra) or "float" not in result.dtype:
        return
    mask, false, true = ins
    if _is_large(false) and true.constant is None:
        algebra.masked[result.term] = (*_pair(on_term((mask, true), result)), _is_far(false.constant))
    elif _is_large(true) and false.constant is None:
        opposite = negate_mask(algebra, mask)
        algebra.masked[result.term] = (*_pair(on_term((opposite, false), result)), _is_far(true.constant))


def negate_mask(algebra: Algebra, mask: TermView) -> TermView:
    """The opposite of a mask; of an opposite, the mask itself."""
    known = algebra.opposites.get(mask.term)
    if known is not None:
        return seen_through(mask, known)
    result = _apply(algebra, "not", [mask], mask.shape, "bool")
    if result.term in algebra.splits:
        return result
    (algebra.opposites[result.term],) = on_term([mask], result)
    if (array := known_array(algebra.arrays, mask)) is not None and mask.term in algebra.contents:
        algebra.arrays.setdefault(result.term, on_own_axes(result, ~array))
        return name_by_content(algebra.arrays, algebra.contents, result)
    return result


def number_masked_maximum(
    algebra: Algebra, value: TermView, over: Sequence[int], reduce: Callable[[TermView], TermView | None]
) -> TermView | None:
    """Number the maximum of masked logits over some axes: of those that are kept; None where nothing is masked."""
    found = _read_masked(algebra, value) if _is_enabled(algebra) else None
    if found is None:
        return None
    mask, x, far = found
    rule = CONSTANT_MASK if far and _keeps_in_every_row(algebra, mask, over) else MASKED
    if rule not in algebra.rules:
        return None
    kept = _keep(algebra, mask, x, value.shape, value.dtype)
    result = reduce(kept)
    if result is None or result.term == kept.term:
        return None
    # By the same logits it may be known of one maximum, and not of another with a constant that is not far.
    if algebra.maxima.setdefault(result.term, (kept.term, rule))[1] != rule:
        algebra.maxima[result.term] = kept.term, MASKED
    return algebra.record(result, rule, *NEEDED)


def _keeps_in_every_row(algebra: Algebra, mask: TermView, over: Sequence[int]) -> bool:
    """Whether a mask that no input decides keeps a logit in every row that the maximum is taken of."""
    array = known_array(algebra.arrays, mask)
    return array is not None and bool(np.all(np.any(array, axis=tuple(over))))


def number_masked_weight(algebra: Algebra, value: TermView, aval: Any) -> TermView | None:
    """Number `exp(where(m, x, c) - max)` as `m * exp(x - max)`; None where nothing is masked."""
    inside = algebra.definition(value) if _is_enabled(algebra) else None
    if not isinstance(inside, Sum):
        return None
    shape, dtype = tuple(aval.shape), dtype_name(aval.dtype)
    for index, (top, scale) in enumerate(inside.terms):
        if scale != -1 or top.term not in algebra.maxima:
            continue
        others = [*inside.terms[:index], *inside.terms[index + 1 :]]
        found = _read_masked(algebra, algebra.sum(inside.constant, others, shape, dtype))
        # The maximum of these very logits: then it is one of them, and far above what stands for the masked ones.
        name, rule = algebra.maxima[top.term]
        if found is None or _keep(algebra, *found[:2], shape, dtype).term != name:
            continue
        mask, x, far = found
        rule = rule if far else MASKED
        if rule not in algebra.rules:
            continue
        below = algebra.sum(0.0, [(x, 1.0), (top, -1.0)], shape, dtype)
        weight = _apply(algebra, "exp", [below], shape, dtype)
        return algebra.record(algebra.product(1.0, [(mask, 1.0), (weight, 1.0)], shape, dtype), rule, *NEEDED)
    return None


def _read_masked(algebra: Algebra, value: TermView) -> tuple[TermView, TermView, bool] | None:
    """The mask and the logits of `where(m, x, c)`, `x + c * ~m` or `x + c * (1 - m)`, and if `c` is far; else None."""
    if value.term in algebra.masked:
        mask, x, far = algebra.masked[value.term]
        return seen_through(value, mask), seen_through(value, x), far
    inside = algebra.definition(value)
    if not isinstance(inside, Sum):
        return None
    for index, (term, scale) in enumerate(inside.terms):
        factor = algebra.definition(term)
        if not isinstance(factor, Product) or len(factor.factors) != 1 or factor.factors[0][0].dtype != "bool":
            continue
        mask, others = factor.factors[0][0], [*inside.terms[:index], *inside.terms[index + 1 :]]
        if scale <= LARGE and inside.constant == 0:
            return negate_mask(algebra, mask), algebra.sum(0.0, others, value.shape, value.dtype), _is_far(scale)
        if scale >= -LARGE and _cancels(inside.constant, scale):
            return mask, algebra.sum(0.0, others, value.shape, value.dtype), _is_far(-scale)
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


def _is_far(constant: Any) -> bool:
    return bool(np.asarray(constant) <= FAR)


def _pair(values: list[TermView]) -> tuple[TermView, TermView]:
    one, other = values
    return one, other
