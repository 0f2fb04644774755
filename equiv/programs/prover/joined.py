"""Operations on reshaped operands, named as if nothing had been reshaped (see `digits.py`).

Each function cuts the axes of the operands into digits, joins what every operand has side by side, has the operation
named on these axes, and views the result in the shape of the program.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from equiv.programs.prover.digits import (
    Digit,
    JoinedPieces,
    Piece,
    SplitTerms,
    axis_digits,
    cut_at_same_places,
    has_digits,
    join_pieces,
    opaque_view,
    split_operand,
    view_joined,
)
from equiv.programs.prover.terms import TermView, broadcast_term

Shape = tuple[int, ...]

NumberElementwise = Callable[[list[TermView], Shape], TermView]
"""Numbers an operation on operands of a shape."""

NumberReduction = Callable[[TermView, Shape, Shape], TermView | None]
"""Numbers a reduction of a value over axes to a shape."""

NumberContraction = Callable[[list[TermView], Any, Shape], TermView | None]
"""Numbers a contraction of two operands by dimension numbers to a shape."""


def whole_view(value: TermView, splits: SplitTerms) -> TermView:
    """View a split term as digits of the whole one."""
    if value.term not in splits:
        return value
    return view_joined(value, [[(axis, 1, size)] for axis, size in enumerate(value.shape)], value.shape, splits)


def split_view(value: TermView, splits: SplitTerms) -> TermView:
    """View a value, which has at most one digit on each axis, on axes of a split term."""
    if not has_digits(value):
        return value
    digits = [*chain(*(axis_digits(value, axis) or [Digit(None, 1, 1)] for axis in range(len(value.shape))))]
    return split_operand(value, digits, splits)


def join_elementwise(ins: Sequence[TermView], shape: Shape, splits: SplitTerms, number: NumberElementwise) -> TermView:
    """An elementwise operation whose operands have digits."""
    # An axis of size one is repeated, as the operation does.
    wide = [broadcast_term(value, shape, range(len(shape))) for value in ins if value.shape]
    axes = [cut_at_same_places(wide, [axis] * len(wide), "") for axis in range(len(shape))] if 0 not in shape else []
    pieces = [group for group in axes if group is not None]
    if len(pieces) != len(axes) or 0 in shape:
        return number([opaque_view(value) for value in ins], shape)
    joined = join_pieces(list(chain(*pieces)))
    operands = iter([_on_pieces(value, index, joined.pieces, splits) for index, value in enumerate(wide)])
    own = tuple(piece.size for piece in joined.pieces)
    result = number([next(operands) if value.shape else value for value in ins], own)
    return _in_shape(result, own, pieces, joined, shape, splits)


def join_weighted(
    make: Callable[[float, list[tuple[TermView, float]], Shape, str], TermView],
    constant: float,
    given: Sequence[tuple[TermView, float]],
    shape: Shape,
    dtype: str,
    splits: SplitTerms,
) -> TermView | None:
    """A product or sum, as `Algebra` makes them, of weighted operands some of which have digits; else None."""
    if not any(has_digits(value) for value, _ in given):
        return None
    weights = [weight for _, weight in given]

    def number(values: Sequence[TermView], own: Shape) -> TermView:
        return make(constant, list(zip(values, weights, strict=True)), own, dtype)

    return join_elementwise([value for value, _ in given], shape, splits, number)


def join_reduction(
    value: TermView, over: Sequence[int], shape: Shape, splits: SplitTerms, number: NumberReduction
) -> TermView | None:
    """A reduction of a value with digits; None where no rule fits."""
    if 0 in value.shape:
        return None
    axes = [
        cut_at_same_places([value], [axis], "gone" if axis in over else "kept") or []
        for axis in range(len(value.shape))
    ]
    joined = join_pieces(list(chain(*axes)))
    gone = tuple(index for index, piece in enumerate(joined.pieces) if piece.role == "gone")
    own = tuple(piece.size for piece in joined.pieces if piece.role == "kept")
    result = number(_on_pieces(value, 0, joined.pieces, splits), gone, own)
    if result is None:
        return None
    kept = [pieces for axis, pieces in enumerate(axes) if axis not in over]
    numbers = {index: number for number, index in enumerate(i for i in range(len(joined.pieces)) if i not in gone)}
    return _in_shape(result, own, kept, _keep_places(axes, joined, over, numbers), shape, splits)


def _keep_places(
    axes: Sequence[Sequence[Piece]], joined: JoinedPieces, over: Sequence[int], numbers: dict[int, int]
) -> JoinedPieces:
    """The places of the pieces that a reduction keeps, by the axes of its result."""
    places = iter(joined.places)
    kept = []
    for axis, pieces in enumerate(axes):
        found = [next(places) for _ in pieces]
        if axis not in over:
            kept += [(numbers[place], divisor) for place, divisor in found]
    return JoinedPieces(joined.pieces, tuple(kept))


def join_contraction(
    ins: Sequence[TermView], numbers: Any, shape: Shape, splits: SplitTerms, number: NumberContraction
) -> TermView | None:
    """A contraction of operands with digits; None where no rule fits."""
    if any(0 in value.shape for value in ins):
        return None
    (left_sum, right_sum), (left_batch, right_batch) = numbers
    batches = [cut_at_same_places(ins, pair, "batch") for pair in zip(left_batch, right_batch, strict=True)]
    sums = [cut_at_same_places(ins, pair, "sum") for pair in zip(left_sum, right_sum, strict=True)]
    if None in batches or None in sums:
        return None
    used = (*left_sum, *left_batch), (*right_sum, *right_batch)
    free = [
        [Piece(role, (one, None) if role == "left" else (None, one), one.size) for one in axis_digits(value, axis)]
        for role, value, others in zip(("left", "right"), ins, used, strict=True)
        for axis in range(len(value.shape))
        if axis not in others
    ]
    written = [*(group or [] for group in batches), *free]
    joined = join_pieces([*chain(*written), *chain(*(group or [] for group in sums))])
    sides = [[piece for piece in joined.pieces if piece.digits[side] is not None] for side in (0, 1)]
    own = [_on_pieces(value, side, sides[side], splits) for side, value in enumerate(ins)]

    def places_of(role: str) -> tuple[Shape, Shape]:
        found = [tuple(index for index, piece in enumerate(side) if piece.role == role) for side in sides]
        return found[0], found[1]

    results = [
        index for role in ("batch", "left", "right") for index, piece in enumerate(joined.pieces) if piece.role == role
    ]
    own_shape = tuple(joined.pieces[index].size for index in results)
    result = number(own, (places_of("sum"), places_of("batch")), own_shape)
    if result is None:
        return None
    renumbered = {index: place for place, index in enumerate(results)}
    places = tuple((renumbered[place], divisor) for place, divisor in joined.places[: sum(map(len, written))])
    return _in_shape(result, own_shape, written, JoinedPieces(joined.pieces, places), shape, splits)


def on_joined_value(
    splits: SplitTerms, value: TermView, over: Sequence[int], shape: Sequence[int], number: NumberReduction
) -> TermView | None:
    """Number a reduction on joined axes, whether its operand has digits or is split."""
    if has_digits(value):
        return join_reduction(value, over, tuple(shape), splits, number)
    if value.term not in splits:
        return number(value, tuple(over), tuple(shape))
    result = join_reduction(whole_view(value, splits), over, tuple(shape), splits, number)
    return None if result is None else split_view(result, splits)


def on_joined_pair(
    splits: SplitTerms, ins: Sequence[TermView], numbers: Any, shape: Sequence[int], number: NumberContraction
) -> TermView | None:
    """Number a contraction on joined axes, whether its operands have digits or are split."""
    if any(map(has_digits, ins)):
        return join_contraction(ins, numbers, tuple(shape), splits, number)
    if not any(value.term in splits for value in ins):
        return number(list(ins), numbers, tuple(shape))
    result = join_contraction([whole_view(value, splits) for value in ins], numbers, tuple(shape), splits, number)
    return None if result is None else split_view(result, splits)


def _on_pieces(value: TermView, side: int, pieces: Sequence[Piece], splits: SplitTerms) -> TermView:
    digits = [piece.digits[side] for piece in pieces]
    return split_operand(value, [one for one in digits if one is not None], splits)


def _in_shape(
    result: TermView,
    own: Shape,
    axes: Sequence[Sequence[Piece]],
    joined: JoinedPieces,
    shape: Shape,
    splits: SplitTerms,
) -> TermView:
    """View a result on joined axes in the shape of the program; `axes` has the pieces on each axis of it."""
    if result.shape != own:  # a scalar stands for itself repeated
        return result
    places = iter(joined.places)
    return view_joined(result, [[(*next(places), piece.size) for piece in group] for group in axes], shape, splits)
