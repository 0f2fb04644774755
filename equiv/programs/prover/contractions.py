"""Normal forms of contractions and reductions, independent of the order of dimensions and operands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax import lax

from equiv.programs.content import ContentReader, digest
from equiv.programs.prover.terms import TermView, dtype_name, relevant_params


@dataclass(frozen=True)
class Contraction:
    """How a contraction was made: parameters and operands of `dot_general`, and the result as a view of its term."""

    params: dict[str, Any]
    ins: tuple[TermView, ...]
    result: TermView

    @property
    def places(self) -> dict[int, tuple[int | None, ...]]:
        """For every axis of the result's term the axis of each operand that it is; None where it has none."""
        found = zip(self.result.axes, result_places(self.ins, self.params["dimension_numbers"]), strict=True)
        return {axis: places for axis, places in found if axis is not None}


OperandAxis = tuple[Any, int | None]
"""The operand (0, 1 or `batch`) and the axis of its term."""


def number_dot_general(params: dict[str, Any], ins: Sequence[TermView], aval: Any) -> TermView | None:
    """Number a contraction by which axes are contracted; None where an operand is broadcast along an axis."""
    left, right = ins
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    written = _result_axes(ins, params["dimension_numbers"])
    pairs = zip(left_batch, right_batch, strict=True)
    shared = [pair for pair in pairs if not any(map(_has_repeated_axis, ins, [(axis,) for axis in pair]))]
    left_batch, right_batch = [one for one, _ in shared], [other for _, other in shared]
    # A repeated axis is no axis of the term: the key below could not say along what is summed, nor how often.
    # Where it is no more than an axis of the result, that has it repeated too.
    if _has_repeated_axis(left, left_sum) or _has_repeated_axis(right, right_sum):
        return None
    sums, batches = _axis_pairs(left, right, left_sum, right_sum), _axis_pairs(left, right, left_batch, right_batch)
    # x @ y and (y.T @ x.T).T are one term: which operand comes first is decided by names, not by the program.
    straight = (left.term, right.term, sorted(sums), sorted(batches))
    swapped = (right.term, left.term, sorted((b, a) for a, b in sums), sorted((b, a) for a, b in batches))
    swap = swapped < straight
    key = swapped if swap else straight
    free = [
        [value.axes[axis] for axis in range(len(value.shape)) if axis not in (*summed, *batch)]
        for value, summed, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch))
    ]
    order: list[OperandAxis] = [("batch", pair[1] if swap else pair[0]) for pair in key[3]]
    for side in (1, 0) if swap else (0, 1):
        order += [(side, axis) for axis in sorted(axis for axis in free[side] if axis is not None)]
    # The term's axes have an order of their own; the program's order is the view.
    axes = tuple(None if axis is None else order.index((side, axis)) for side, axis in written)
    kept = relevant_params(params, "dimension_numbers", "preferred_element_type", "precision")
    # Each operand has its own dtype and its own precision.
    precision = _swap_precision(params["precision"]) if swap else params["precision"]
    dtypes = (right.dtype, left.dtype) if swap else (left.dtype, right.dtype)
    term = digest("dot", key, kept, ContentReader().read(precision), dtypes, dtype_name(aval.dtype))
    return TermView(term, axes, tuple(aval.shape), dtype_name(aval.dtype))


def result_places(ins: Sequence[TermView], numbers: Any) -> list[tuple[int | None, ...]]:
    """For every axis of a contraction's result the axis of each operand that it is; None where it has none."""
    (left_sum, right_sum), (left_batch, right_batch) = numbers
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*summed, *batch)]
        for value, summed, batch in zip(ins, (left_sum, right_sum), (left_batch, right_batch), strict=True)
    ]
    batches = zip(left_batch, right_batch, strict=True)
    return [*batches, *((axis, None) for axis in free[0]), *((None, axis) for axis in free[1])]


def _result_axes(ins: Sequence[TermView], numbers: Any) -> list[OperandAxis]:
    """For every axis of a contraction's result whose it is, and which axis of its term; None of a repeated one.

    What one operand repeats along a batch axis is the other's own: as if the program had not repeated it.
    """
    found: list[OperandAxis] = []
    for places in result_places(ins, numbers):
        own = [
            None if place is None or _has_repeated_axis(value, (place,)) else (side, value.axes[place])
            for side, (value, place) in enumerate(zip(ins, places, strict=True))
        ]
        real = [one for one in own if one is not None]
        found.append(("batch", real[0][1]) if len(real) == 2 else real[0] if real else ("none", None))
    return found


def _swap_precision(precision: Any) -> Any:
    if isinstance(precision, lax.DotAlgorithm):
        return precision._replace(
            lhs_precision_type=precision.rhs_precision_type,
            rhs_precision_type=precision.lhs_precision_type,
            lhs_component_count=precision.rhs_component_count,
            rhs_component_count=precision.lhs_component_count,
        )
    # A preset treats both operands alike, as None does.
    return precision[::-1] if isinstance(precision, tuple) else precision


def _axis_pairs(left: TermView, right: TermView, ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    pairs = [(left.axes[one], right.axes[other]) for one, other in zip(ours, theirs, strict=True)]
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _has_repeated_axis(value: TermView, axes: Sequence[int]) -> bool:
    return any(value.axes[axis] is None and value.shape[axis] != 1 for axis in axes)


REPEATABLE = frozenset(("reduce_max", "reduce_min", "reduce_and", "reduce_or"))
"""Reductions of equal elements to that element."""


def number_reduction(name: str, params: dict[str, Any], value: TermView, aval: Any) -> TermView | None:
    """Number a reduction by the reduced axes of the term; None where one of them is broadcast and counts."""
    over = params["axes"]
    # Summing equal elements multiplies; their maximum is one of them. Of none, there is no rule.
    repeated = any(value.axes[axis] is None and value.shape[axis] != 1 for axis in over)
    if repeated and (name not in REPEATABLE or 0 in value.shape):
        return None
    gone = sorted(axis for axis in (value.axes[index] for index in over) if axis is not None)
    kept = [value.axes[axis] for axis in range(len(value.shape)) if axis not in over]
    # Only unit axes are reduced: the one element is the result.
    if not gone:
        return TermView(value.term, tuple(kept), tuple(aval.shape), value.dtype, value.constant)
    left = sorted(axis for axis in kept if axis is not None)
    axes = tuple(None if axis is None else left.index(axis) for axis in kept)
    term = digest("reduce", name, value.term, gone, relevant_params(params, "axes"), dtype_name(aval.dtype))
    return TermView(term, axes, tuple(aval.shape), dtype_name(aval.dtype))
