"""Names of sums: contractions and reductions, whole or part by part, with the rewrites that apply to them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from jax.core import ShapedArray

from equiv.programs.primitives import REDUCTIONS
from equiv.programs.prover import contractions, rules
from equiv.programs.prover.algebra import PARTS, REORDERED_SUMS, Algebra
from equiv.programs.prover.joined import on_joined_pair, on_joined_value
from equiv.programs.prover.masks import number_masked_maximum
from equiv.programs.prover.moves import cut_along
from equiv.programs.prover.parts import Again
from equiv.programs.prover.terms import TermView, dtype_name


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
    if result is None:
        result = _number_whole_dot(algebra, params, dtype, ins, numbers, shape)
    algebra.pieces.record(result, ins, contractions.result_places(ins, numbers), again)
    return result


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
        return contractions.number_dot_general(params | {"dimension_numbers": numbers}, pair, ShapedArray(shape, dtype))

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
        return result

    def whole(one: TermView, over: Sequence[int] = over) -> TermView | None:
        kept = tuple(size for axis, size in enumerate(one.shape) if axis not in over)
        return on_joined_value(algebra.splits, one, over, kept, reduce)

    if "float" not in dtype_name(dtype):
        return whole(value)
    if name == "reduce_max" and (found := number_masked_maximum(algebra, value, over, whole)) is not None:
        return found
    if name == "reduce_sum":
        return rules.rewrite_sum(algebra, value, over, whole, ShapedArray(shape, dtype))
    return whole(value)
