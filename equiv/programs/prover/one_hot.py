"""One-hot masks: a lookup is a sum with a mask that is true at one place, `x[i] = sum(where(arange(n) == i, x, 0))`.

So `one_hot(i, n) @ x`, `x[i]` and `take_along_axis` are one lookup, and what is looked up in a sum or product is looked
up in each of its parts: `(z - m)[i]` is `z[i] - m` where `m` is the same for all places. The index has to be in range,
where exactly one element of the mask is true: known to be, or by the rewrite of that name.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.core import ShapedArray

from equiv.core.grades import IN_RANGE
from equiv.programs.content import digest
from equiv.programs.prover import contractions
from equiv.programs.prover.algebra import Algebra, OneHot, Product, ReducedSum, Sum
from equiv.programs.prover.conditions import FINITE, MASKS, ONE_HOT, REORDERED_PRODUCTS, REORDERED_SUMS
from equiv.programs.prover.digits import has_digits
from equiv.programs.prover.joined import join_elementwise, on_joined_value
from equiv.programs.prover.known_arrays import EXACT_DTYPES
from equiv.programs.prover.terms import (
    TermView,
    apply_elementwise,
    broadcast_term,
    constant_view,
    dtype_name,
    on_term,
    place_axes,
    seen_through,
)

NEEDED = frozenset((ONE_HOT, MASKS, REORDERED_PRODUCTS, REORDERED_SUMS))
"""A mask is a factor of a product, and what is looked up in a sum is a sum."""


def number_positions(algebra: Algebra, size: int, dtype: Any) -> TermView | None:
    """The whole numbers from 0 to below a size, however they were made; None in a dtype that does not have them."""
    name = dtype_name(dtype)
    if name == "bool" or name not in EXACT_DTYPES or size - 1 > np.iinfo(name).max or size < 1:
        return None
    if size == 1:
        return constant_view(np.zeros((), name), (1,))
    term = digest("positions", size, name)
    algebra.positions[term] = size
    algebra.ranges[term] = 0, size - 1
    algebra.arrays.setdefault(term, np.arange(size).astype(name))
    return TermView(term, (0,), (size,), name)


def name_positions(algebra: Algebra, value: TermView, array: Any) -> TermView:
    """A constant array that counts from 0 as positions; any other as it is."""
    if value.dtype not in EXACT_DTYPES or value.dtype == "bool" or np.size(array) != max(np.shape(array), default=0):
        return value
    numbers = np.asarray(array).reshape(-1)
    if not np.array_equal(numbers, np.arange(numbers.size)):
        return value
    known = number_positions(algebra, numbers.size, value.dtype)
    return value if known is None else TermView(known.term, value.axes, value.shape, value.dtype, known.constant)


def known_range(algebra: Algebra, value: TermView) -> tuple[int, int] | None:
    """The smallest and the largest number that a value of whole numbers can have; None where that is not known."""
    if "int" not in value.dtype:
        return None
    if value.constant is not None:
        return int(value.constant), int(value.constant)
    pieces = algebra.pieces
    if value.term in pieces.regions:
        return known_range(algebra, pieces.regions[value.term].whole)
    if value.term in pieces.joined:
        parts = [known_range(algebra, one) for one in pieces.joined[value.term].values]
        known = [one for one in parts if one is not None]
        return (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(parts) else None
    return algebra.ranges.get(value.term)


def is_within(algebra: Algebra, index: TermView, size: int) -> bool:
    """Whether every element of an index is known to be a place of an axis."""
    known = known_range(algebra, index)
    return known is not None and known[0] >= 0 and known[1] < size


def record_one_hot(algebra: Algebra, ins: Sequence[TermView], result: TermView) -> None:
    """Record `i == arange(n)`, where `i` is the same along the axis of the positions."""
    for index, positions in (ins, ins[::-1]):
        size = algebra.positions.get(positions.term)
        if size is None or "int" not in index.dtype:
            continue
        places = [place for place, axis in enumerate(positions.axes) if axis == 0]
        if len(places) == 1 and (not index.shape or index.axes[places[0]] is None):
            (own,) = on_term([index], result)
            algebra.one_hot[result.term] = OneHot(own, result.axes[places[0]], size)


def find_one_hot(algebra: Algebra, value: TermView, axes: Sequence[int]) -> tuple[int, TermView] | None:
    """The one axis among these along which exactly one factor of a product is a one-hot mask, and that mask; else None.

    Where the index is not known to be in range, the rewrite of that name is taken.
    """
    if not algebra.rules >= NEEDED or has_digits(value):
        return None
    inside = algebra.definition(value)
    found = []
    for one, _ in inside.factors if isinstance(inside, Product) else ():
        known = algebra.one_hot.get(one.term)
        places = [axis for axis in axes if known is not None and one.axes and one.axes[axis] == known.axis]
        if known is not None and places and (IN_RANGE in algebra.rules or is_within(algebra, known.index, known.size)):
            found.append((places[0], one, known))
    if len(found) != 1:
        return None
    ((axis, mask, known),) = found
    if not is_within(algebra, known.index, known.size):
        algebra.applied.add(IN_RANGE)
    return axis, mask


def look_up_in_sum(algebra: Algebra, value: TermView, over: Sequence[int]) -> tuple[int, TermView] | None:
    """The sum of a product with a one-hot mask along its axis: what the others are there; None where there is none."""
    found = find_one_hot(algebra, value, over)
    inside = algebra.definition(value)
    if found is None or not isinstance(inside, Product):
        return None
    axis, mask = found
    others = [(one, power) for one, power in inside.factors if one != mask]
    rest = algebra.product(inside.constant, others, value.shape, value.dtype)
    return axis, look_up(algebra, mask, _with_shape(rest, value.shape), axis)


def look_up(algebra: Algebra, mask: TermView, x: TermView, axis: int) -> TermView:
    """What a value is where a one-hot mask is true along an axis, which the result does not have."""
    if x.constant is not None or x.axes[axis] is None:
        return _without(x, axis)
    if x == mask:
        return constant_view(np.asarray(True), _without(x, axis).shape)
    inside = None if has_digits(x) else algebra.definition(x)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    if isinstance(inside, Sum | Product):
        parts = inside.factors if isinstance(inside, Product) else inside.terms
        found = [(look_up(algebra, mask, _with_shape(one, x.shape), axis), number) for one, number in parts]
        make = algebra.product if isinstance(inside, Product) else algebra.sum
        return _with_shape(make(inside.constant, found, shape, x.dtype), shape)

    def pair(operands: Sequence[TermView], own: tuple[int, ...]) -> TermView:
        return apply_elementwise(("looked up", []), operands, own, x.dtype, commutes=False)

    def reduce(one: TermView, over: tuple[int, ...], own: tuple[int, ...]) -> TermView | None:
        return contractions.number_reduction("looked up", {"axes": over}, one, ShapedArray(own, x.dtype))

    both = [mask, x]
    joined = join_elementwise(both, x.shape, algebra.splits, pair) if any(map(has_digits, both)) else None
    joined = algebra.join(both, x.shape, pair) if joined is None else joined
    result = on_joined_value(algebra.splits, joined, (axis,), shape, reduce)
    assert result is not None  # the mask varies along the axis
    return result


def look_up_in_contraction(
    algebra: Algebra, ins: Sequence[TermView], numbers: Any, shape: tuple[int, ...], dtype: str
) -> TermView | None:
    """A contraction with a one-hot mask along its axis as a lookup; None where there is none."""
    if not algebra.rules >= NEEDED or any(len(places) != 1 for places in numbers[0]):
        return None
    places = contractions.result_places(ins, numbers)
    sums = [one for (one,) in numbers[0]]
    whole = (*shape, ins[0].shape[sums[0]])
    found = []
    for side in (0, 1):
        scale, base = algebra.unit(ins[side])
        known = find_one_hot(algebra, base, [sums[side]])
        inside = algebra.definition(base)
        if known is not None and isinstance(inside, Product) and len(inside.factors) == 1:
            found.append((side, scale, known[1]))
    if len(found) != 1:
        return None
    ((side, scale, mask),) = found

    def widen(value: TermView, own: int) -> TermView:
        return place_axes(value, [*(row[own] for row in places), sums[own]], whole)

    result = look_up(algebra, widen(mask, side), widen(ins[1 - side], 1 - side), len(shape))
    return algebra.record(algebra.product(scale, [(result, 1.0)], shape, dtype), *NEEDED)


def number_known_sign(
    algebra: Algebra, name: str, ins: Sequence[TermView], shape: tuple[int, ...], dtype: str
) -> TermView | None:
    """What decides nothing in `logsumexp` and its derivative: signs of exponentials, and whether a maximum is finite.

    `abs(v)` is `v` for exponentials and their sums; under a rewrite their signs are known too, and
    `where(is_finite(m), m, 0)` is `m`. Whether anything but a maximum is finite is for the program to ask.
    """
    value = ins[0]
    if name == "abs" and value.shape == shape and _is_exponential(algebra, value):
        return value
    if FINITE not in algebra.rules:
        return None
    if name == "ge" and ins[1].constant == 0 and _is_exponential(algebra, value):
        return algebra.record(constant_view(np.asarray(True), shape), FINITE)
    # Of a sum alone: a single exponential underflows to 0, as where a logit is masked by a large number.
    is_sum = isinstance(algebra.made.get(value.term), ReducedSum)
    if name == "sign" and "float" in dtype and is_sum and _is_exponential(algebra, value):
        return algebra.record(constant_view(np.ones((), dtype), shape), FINITE)
    known = algebra.finite.get(value.term)
    if name == "select_n" and known is not None and len(ins) == 3 and ins[1].constant == 0 and not has_digits(value):
        return algebra.record(ins[2], FINITE) if seen_through(value, known) == ins[2] else None
    return None


def record_finite(algebra: Algebra, ins: Sequence[TermView], result: TermView) -> None:
    """Record `is_finite(m)` of a maximum over axes."""
    if ins[0].term in algebra.maximal:
        (algebra.finite[result.term],) = on_term(ins, result)


def _is_exponential(algebra: Algebra, value: TermView) -> bool:
    """Whether a value is `exp(x)`, or a sum of such over axes, some of them masked; or a masked one itself."""
    if value.term in algebra.exponentials:
        return True
    known = algebra.made.get(value.term)
    if isinstance(known, ReducedSum):
        return _is_exponential(algebra, known.value)
    if not isinstance(known, Product) or known.constant <= 0:
        return False
    return all(power == 1 and (one.dtype == "bool" or one.term in algebra.exponentials) for one, power in known.factors)


def _without(value: TermView, axis: int) -> TermView:
    axes, shape = ((*items[:axis], *items[axis + 1 :]) for items in (value.axes, value.shape))
    return TermView(value.term, axes, shape, value.dtype, value.constant)


def _with_shape(value: TermView, shape: Sequence[int]) -> TermView:
    """A value with this shape; a number stands for itself repeated."""
    return value if value.shape == tuple(shape) else broadcast_term(value, shape, ())
