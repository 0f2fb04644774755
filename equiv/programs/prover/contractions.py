"""Normal forms of contractions and reductions: the order in which dimensions are written does not count."""

from collections.abc import Sequence
from typing import Any

from equiv.programs.prover.terms import Value, attributes, digest, dtype_name

RULES = frozenset(("dot_general", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"))


Axis = tuple[Any, int | None]
"""Which operand (or `batch`), and which axis of its term."""


def dot_general(params: dict[str, Any], ins: Sequence[Value], aval: Any) -> Value | None:
    """A contraction by what is summed against what; None where an operand is repeated along a real axis."""
    left, right = ins
    if _repeats(left) or _repeats(right):
        return None
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    sums, batches = _pairs(left, right, left_sum, right_sum), _pairs(left, right, left_batch, right_batch)
    straight = (left.term, right.term, sorted(sums), sorted(batches))
    turned = (right.term, left.term, sorted((b, a) for a, b in sums), sorted((b, a) for a, b in batches))
    swap = turned < straight
    key = turned if swap else straight
    free = [
        [value.axes[axis] for axis in range(len(value.shape)) if axis not in (*summed, *batch)]
        for value, summed, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch))
    ]
    order: list[Axis] = [("batch", pair[1] if swap else pair[0]) for pair in key[3]]
    for side in (1, 0) if swap else (0, 1):
        order += [(side, axis) for axis in sorted(axis for axis in free[side] if axis is not None)]
    written: list[Axis] = [("batch", left.axes[axis]) for axis in left_batch]
    written += [(side, axis) for side in (0, 1) for axis in free[side]]
    axes = tuple(None if axis is None else order.index((side, axis)) for side, axis in written)
    kept = attributes(params, "dimension_numbers", "preferred_element_type")
    dtypes = (dtype_name(aval.dtype), *sorted((left.dtype, right.dtype)))
    return Value(digest("dot", key, kept, dtypes), axes, tuple(aval.shape), dtype_name(aval.dtype))


def _pairs(left: Value, right: Value, ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    pairs = [(left.axes[one], right.axes[other]) for one, other in zip(ours, theirs, strict=True)]
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _repeats(value: Value) -> bool:
    return any(axis is None and size != 1 for axis, size in zip(value.axes, value.shape, strict=True))


def reduce(name: str, params: dict[str, Any], value: Value, aval: Any) -> Value | None:
    """A reduction by the axes of the term that it goes over; None where one of them is a repetition."""
    over = params["axes"]
    if any(value.axes[axis] is None and value.shape[axis] != 1 for axis in over):
        return None
    gone = sorted(axis for axis in (value.axes[index] for index in over) if axis is not None)
    kept = [value.axes[axis] for axis in range(len(value.shape)) if axis not in over]
    if not gone:
        return Value(value.term, tuple(kept), tuple(aval.shape), value.dtype, value.constant)
    left = sorted(axis for axis in kept if axis is not None)
    axes = tuple(None if axis is None else left.index(axis) for axis in kept)
    term = digest("reduce", name, value.term, gone, attributes(params, "axes"), dtype_name(aval.dtype))
    return Value(term, axes, tuple(aval.shape), dtype_name(aval.dtype))
