"""Names of sums: contractions and reductions, whole or part by part, with the rewrites that apply to them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from jax.core import ShapedArray

from equiv.programs.primitives import REDUCTIONS
from equiv.programs.prover import contractions, rules
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import LINEAR, PARTS, REORDERED_PRODUCTS, REORDERED_SUMS
from equiv.programs.prover.digits import Digit, has_digits
from equiv.programs.prover.joined import on_joined_pair, on_joined_value
from equiv.programs.prover.masks import number_masked_maximum
from equiv.programs.prover.moves import cut_along
from equiv.programs.prover.one_hot import look_up_in_contraction
from equiv.programs.prover.parts import Again, identity_view
from equiv.programs.prover.terms import TermView, broadcast_term, dtype_name, is_infinite, place_axes, transpose_term


def number_contraction(
    algebra: Algebra, name: str, params: dict[str, Any], ins: list[TermView], aval: Any
) -> TermView | None:
    """Number a contraction or reduction; scales are moved out where a rewrite is enabled. None where no rule fits."""
    if name == "dot_general":
        dot = partial(_number_dot, algebra, params, aval.dtype)
        return on_joined_pair(algebra.splits, ins, params["dimension_numbers"], aval.shape, dot)
    if name in REDUCTIONS:
        reduce = partial(_number_reduction, algebra, name, params, aval.dtype)
        return on_joined_value(algebra.splits, ins[0], params["axes"], aval.shape, reduce)
    return None


def _number_dot(
    algebra: Algebra, params: dict[str, Any], dtype: Any, ins: list[TermView], numbers: Any, shape: tuple[int, ...]
) -> TermView | None:
    def again(pair: list[TermView], own: tuple[int, ...]) -> TermView | None:
        return on_joined_pair(algebra.splits, pair, numbers, own, partial(_number_dot, algebra, params, dtype))

    result = sum_of_parts(algebra, ins, list(zip(*numbers[0], strict=True)), shape, dtype, again)
    real = "float" in dtype_name(dtype) and not any(map(is_infinite, ins))
    if result is None and real:
        result = look_up_in_contraction(algebra, ins, numbers, shape, dtype_name(dtype))
    if result is None and not numbers[0][0] and REORDERED_PRODUCTS in algebra.rules and real:
        result = _number_products(algebra, ins, numbers, shape, dtype_name(dtype))
    if result is None:
        result = _number_whole_dot(algebra, params, dtype, ins, numbers, shape)
    algebra.pieces.record(result, ins, contractions.result_places(ins, numbers), again, steps=1)
    return result


def _number_products(
    algebra: Algebra, ins: Sequence[TermView], numbers: Any, shape: tuple[int, ...], dtype: str
) -> TermView | None:
    """A contraction over no axis: products of elements, each with one of the other operand."""
    places = contractions.result_places(ins, numbers)
    wide = [(place_axes(value, [row[side] for row in places], shape), 1.0) for side, value in enumerate(ins)]
    return algebra.record(algebra.product(1.0, wide, shape, dtype), REORDERED_PRODUCTS)


def sum_of_parts(
    algebra: Algebra,
    ins: Sequence[TermView],
    summed: Sequence[Sequence[int]],
    shape: tuple[int, ...],
    dtype: Any,
    number: Again,
) -> TermView | None:
    """A sum or contraction over an axis along which an operand is a concatenation, as the sum of those of its parts."""
    if not {PARTS, REORDERED_SUMS} <= algebra.rules or "float" not in dtype_name(dtype):
        return None
    for axes in summed:
        parts = cut_along(algebra.pieces, ins, axes)
        if parts is None:
            continue
        found = [number(part, shape) for part in parts if all(one.constant != 0 for one in part)]
        known = [(one, 1.0) for one in found if one is not None]
        if len(known) == len(found):
            return algebra.record(algebra.sum(0.0, known, shape, dtype_name(dtype)), PARTS, REORDERED_SUMS)
    return None


def _number_whole_dot(
    algebra: Algebra, params: dict[str, Any], dtype: Any, ins: list[TermView], numbers: Any, shape: tuple[int, ...]
) -> TermView | None:
    def dot(pair: list[TermView], numbers: Any, shape: tuple[int, ...]) -> TermView | None:
        own = params | {"dimension_numbers": numbers}
        result = contractions.number_dot_general(own, pair, ShapedArray(shape, dtype))
        if result is not None:
            algebra.contracted.setdefault(result.term, contractions.Contraction(own, tuple(pair), result))
        return result

    whole = partial(on_joined_pair, algebra.splits, numbers=numbers, shape=shape, number=dot)
    return rules.rewrite_contraction(algebra, ins, whole, ShapedArray(shape, dtype))


def _number_reduction(
    algebra: Algebra,
    name: str,
    params: dict[str, Any],
    dtype: Any,
    value: TermView,
    over: tuple[int, ...],
    shape: tuple[int, ...],
) -> TermView | None:
    def again(values: list[TermView], own: tuple[int, ...]) -> TermView | None:
        number = partial(_number_reduction, algebra, name, params, dtype)
        return on_joined_value(algebra.splits, values[0], over, own, number)

    result = None
    if name == "reduce_sum":
        result = sum_of_parts(algebra, [value], [(axis,) for axis in over], shape, dtype, again)
    if result is None:
        result = _number_whole_reduction(algebra, name, params, dtype, value, over, shape)
    kept = [(axis,) for axis in range(len(value.shape)) if axis not in over]
    algebra.pieces.record(result, [value], kept, again)
    return result


def _number_whole_reduction(
    algebra: Algebra,
    name: str,
    params: dict[str, Any],
    dtype: Any,
    value: TermView,
    over: tuple[int, ...],
    shape: tuple[int, ...],
) -> TermView | None:
    def reduce(one: TermView, over: tuple[int, ...], shape: tuple[int, ...]) -> TermView | None:
        result = contractions.number_reduction(name, params | {"axes": over}, one, ShapedArray(shape, dtype))
        if name == "reduce_sum" and result is not None:
            rules.record_sum(algebra, one, over, result)
        if name == "reduce_max" and result is not None and result.term != one.term:
            algebra.maximal.add(result.term)
        return result

    def whole(one: TermView, over: Sequence[int] = over) -> TermView | None:
        if name == "reduce_sum" and (found := _sum_of_batch(algebra, one, over, dtype)) is not None:
            return algebra.record(found, LINEAR, REORDERED_SUMS)
        kept = tuple(size for axis, size in enumerate(one.shape) if axis not in over)
        return on_joined_value(algebra.splits, one, over, kept, reduce)

    if "float" not in dtype_name(dtype):
        return whole(value)
    if name == "reduce_max" and (found := number_masked_maximum(algebra, value, over, whole)) is not None:
        return found
    if name == "reduce_sum":
        return rules.rewrite_sum(algebra, value, over, whole, ShapedArray(shape, dtype))
    return whole(value)


def _sum_of_batch(algebra: Algebra, value: TermView, over: Sequence[int], dtype: Any) -> TermView | None:
    """A sum over batch axes of a contraction, `sum_b(sum_k(x * y))`, as one contraction; None where it is none.

    The derivative of a head of keys that several heads of queries share is such a sum.
    """
    if has_digits(value):
        return None
    split = algebra.splits.get(value.term)
    known = algebra.contracted.get(split.term if split else value.term)
    if known is None or not {LINEAR, REORDERED_SUMS} <= algebra.rules:
        return None
    digits = split.digits if split else [Digit(axis, 1, size) for axis, size in enumerate(identity_view(value).shape)]
    own: list[tuple[Digit, tuple[int | None, ...]]] = []
    for axis, size in zip(value.axes, value.shape, strict=True):
        digit = Digit(None, 1, size) if axis is None else digits[axis]
        own.append((digit, (None, None) if digit.axis is None else known.places[digit.axis]))
    gone = [axis for axis in over if None not in own[axis][1]]
    if not gone or any(own[axis][0].axis is None and value.shape[axis] != 1 for axis in over):
        return None
    sums = known.params["dimension_numbers"][0]
    pair, has = [], []
    for side, one in enumerate(known.ins):
        axes = [axis for axis, (_, places) in enumerate(own) if places[side] is not None]
        views = [[own[axis][0]._replace(axis=own[axis][1][side])] for axis in axes]
        views += [[Digit(place, 1, one.shape[place])] for place in sums[side]]
        shape = (*(value.shape[axis] for axis in axes), *(one.shape[place] for place in sums[side]))
        pair.append(algebra.pieces.seen_through_digits(views, shape, one))
        has.append(axes)
    both = [axis for axis in has[0] if axis in has[1]]
    kept = [axis for axis in both if axis not in gone]
    free = [[axis for axis in axes if axis not in both] for axes in has]
    summed = [
        (*map(axes.index, gone), *range(len(axes), len(axes) + len(places)))
        for axes, places in zip(has, sums, strict=True)
    ]
    numbers = (tuple(summed), tuple(tuple(map(axes.index, kept)) for axes in has))
    made = [*kept, *free[0], *free[1]]
    shape = tuple(value.shape[axis] for axis in made)
    result = on_joined_pair(algebra.splits, pair, numbers, shape, partial(_number_dot, algebra, known.params, dtype))
    if result is None:
        return None
    left = [axis for axis in range(len(value.shape)) if axis not in gone]
    order = sorted(range(len(made)), key=lambda place: made[place])
    result = broadcast_term(
        transpose_term(result, order),
        [value.shape[axis] for axis in left],
        [left.index(made[place]) for place in order],
    )
    rest = tuple(left.index(axis) for axis in over if axis not in gone)
    if not rest:
        return result
    shape = tuple(size for axis, size in enumerate(result.shape) if axis not in rest)
    number = partial(_number_reduction, algebra, "reduce_sum", {"axes": rest, "out_sharding": None}, dtype)
    return on_joined_value(algebra.splits, result, rest, shape, number)
