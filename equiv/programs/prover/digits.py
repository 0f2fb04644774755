"""Axes that a reshape splits and merges: views by digits, so that an operation and a reshape can be exchanged.

An index of an axis of 6 = 2 x 3 is two digits, as hours and minutes are of a time. A view may have on one of its axes
some digits of the term's axes, in an order. So a reshape is a view, and before an operation its operands' axes are cut
into digits and put together again where all operands have the same digits side by side: the operation is named as if
nothing had been reshaped. Every digit of a term stands once in a view.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from equiv.programs.content import digest
from equiv.programs.prover.terms import TermView, new_term


class Digit(NamedTuple):
    """`index // divisor % size` of an axis of the term; of no axis where elements are repeated."""

    axis: int | None
    divisor: int
    size: int


@dataclass(frozen=True)
class SplitTerm:
    """A term each of whose axes is split to these sizes, as by a reshape."""

    term: str
    sizes: tuple[tuple[int, ...], ...]

    @property
    def digits(self) -> list[Digit]:
        """For each axis of the split term the digit of the whole term that it is."""
        return [
            Digit(axis, prod(sizes[index + 1 :]), size)
            for axis, sizes in enumerate(self.sizes)
            for index, size in enumerate(sizes)
        ]

    def split_operand(self, value: TermView, splits: "SplitTerms") -> TermView:
        """View on the axes of the split term what is viewed on those of the whole term."""
        if not value.shape:
            return value
        views = [(value.axes[one.axis], one) for one in self.digits if one.axis is not None]
        return split_operand(
            value, [Digit(axis, 1 if axis is None else one.divisor, one.size) for axis, one in views], splits
        )


SplitTerms = MutableMapping[str, SplitTerm]
"""Name of a split term to what it is."""


def has_digits(value: TermView) -> bool:
    """Whether an axis of a value is not simply one of the term's, or repeated."""
    for axis in value.axes:  # noqa: SIM110 - asked for every operand, and a generator takes three times as long
        if isinstance(axis, tuple):
            return True
    return False


def axis_digits(value: TermView, index: int) -> list[Digit]:
    """The digits on an axis of a value, outermost first; none for an axis of size one."""
    axis, size = value.axes[index], value.shape[index]
    if isinstance(axis, tuple):
        return list(axis)
    return [] if size == 1 else [Digit(axis, 1, size)]


def renumber_axis(axis: Any, number: Callable[[int], int]) -> Any:
    """Renumber the axes of the term on one axis of a view."""
    if isinstance(axis, tuple):
        return tuple(one if one.axis is None else one._replace(axis=number(one.axis)) for one in axis)
    return None if axis is None else number(axis)


def view_digits(value: TermView, shape: Sequence[int], digits: Sequence[Sequence[Digit]]) -> TermView:
    """View a value's term by other digits: whole axes where they are complete again."""
    joined = [_join_digits(group) for group in digits]
    count: dict[int | None, int] = {}
    for one in (one for group in joined for one in group):
        count[one.axis] = count.get(one.axis, 0) + 1
    axes: list[Any] = []
    for group in joined:
        alone = len(group) == 1 and (group[0].axis is None or count[group[0].axis] == 1)
        axes.append(None if not group else group[0].axis if alone else tuple(group))
    return TermView(value.term, tuple(axes), tuple(shape), value.dtype, value.constant)


def _join_digits(digits: Iterable[Digit]) -> list[Digit]:
    joined: list[Digit] = []
    for one in digits:
        if joined and _follows(joined[-1], one):
            one = Digit(one.axis, one.divisor, joined.pop().size * one.size)
        joined.append(one)
    return joined


def _follows(outer: Digit, inner: Digit) -> bool:
    """Whether two digits side by side are one larger digit; repeated elements always are."""
    return outer.axis == inner.axis and (outer.axis is None or outer.divisor == inner.divisor * inner.size)


def see_digits(view: TermView, own: TermView) -> TermView:
    """View an operand, given on the axes of a term, through a view of that term (see `terms.seen_through`)."""
    groups = []
    for index in range(len(view.shape)):
        digits = axis_digits(view, index)
        groups.append([one if one.axis is None else one._replace(axis=own.axes[one.axis]) for one in digits])
    return view_digits(own, view.shape, [[_repeat(one) for one in group] for group in groups])


def _repeat(digit: Digit) -> Digit:
    return Digit(None, 1, digit.size) if digit.axis is None else digit


def cut_digits(digits: Sequence[Digit], sizes: Sequence[int]) -> list[list[Digit]] | None:
    """Cut digits into groups of these sizes; None where a size does not divide."""
    left, groups = list(reversed(digits)), []
    for size in sizes:
        group: list[Digit] = []
        while size > 1:
            one = left.pop()
            if size % one.size == 0:
                size //= one.size
            elif one.size % size == 0:
                inner = one.size // size
                left.append(Digit(one.axis, 1 if one.axis is None else one.divisor, inner))
                one, size = Digit(one.axis, 1 if one.axis is None else one.divisor * inner, size), 1
            else:
                return None
            group.append(one)
        groups.append(group)
    return groups


def reshape_digits(value: TermView, shape: Sequence[int]) -> TermView | None:
    """Reshape a value by a view; None where no digits fit, as from 2 x 3 to 3 x 2, and for empty arrays."""
    if 0 in value.shape:
        return None
    groups = cut_digits([one for index in range(len(value.shape)) for one in axis_digits(value, index)], shape)
    return None if groups is None else view_digits(value, shape, groups)


class Piece(NamedTuple):
    """One axis of cut operands.

    Attributes:
        role: pieces of another role are never put together.
        digits: what each operand has there: a digit, or None where it has no such axis.
        size: how long it is.
    """

    role: str
    digits: tuple[Digit | None, ...]
    size: int


@dataclass(frozen=True)
class JoinedPieces:
    """Pieces, put together where every operand has consecutive digits.

    Attributes:
        pieces: the joined ones.
        places: for each original piece the joined one, and the divisor within it.
    """

    pieces: tuple[Piece, ...]
    places: tuple[tuple[int, int], ...]


def join_pieces(pieces: Sequence[Piece]) -> JoinedPieces:
    """Put pieces together wherever they stand; the outer one need not be beside the inner one."""
    after = {
        index: other
        for index, one in enumerate(pieces)
        for other, next_ in enumerate(pieces)
        if index != other and _pieces_follow(one, next_)
    }
    inner = set(after.values())
    joined: list[Piece] = []
    places: dict[int, tuple[int, int]] = {}
    for head in (index for index in range(len(pieces)) if index not in inner):
        chain = [head]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        size = prod(pieces[index].size for index in chain)
        last = pieces[chain[-1]].digits
        digits = tuple(None if one is None else Digit(one.axis, one.divisor, size) for one in last)
        divisor = size
        for index in chain:
            divisor //= pieces[index].size
            places[index] = len(joined), divisor
        joined.append(Piece(pieces[head].role, digits, size))
    return JoinedPieces(tuple(joined), tuple(places[index] for index in range(len(pieces))))


def _pieces_follow(outer: Piece, inner: Piece) -> bool:
    if outer.role != inner.role:
        return False
    real = False
    for one, other in zip(outer.digits, inner.digits, strict=True):
        if one is None or other is None:
            if one is not other:
                return False
        elif not _follows(one, other):
            return False
        else:
            real |= one.axis is not None
    # Where no operand has an axis of its term, the result has none either.
    return real


def split_operand(value: TermView, digits: Sequence[Digit], splits: SplitTerms) -> TermView:
    """View a value on joined pieces: each of its axes is one of its term's, which is split where it has to be."""
    by_axis: dict[int, list[Digit]] = {}
    for one in digits:
        if one.axis is not None:
            by_axis.setdefault(one.axis, []).append(one)
    shape = tuple(one.size for one in digits)
    if all(len(group) == 1 for group in by_axis.values()):
        return TermView(value.term, tuple(one.axis for one in digits), shape, value.dtype, value.constant)
    ordered = [sorted(by_axis[axis], key=lambda one: -one.divisor) for axis in range(len(by_axis))]
    split = SplitTerm(value.term, tuple(tuple(one.size for one in group) for group in ordered))
    name = digest("split", split.term, split.sizes)
    splits.setdefault(name, split)
    numbers = {one: number for number, one in enumerate(one for group in ordered for one in group)}
    return TermView(name, tuple(None if one.axis is None else numbers[one] for one in digits), shape, value.dtype)


def view_joined(
    result: TermView, places: Sequence[Sequence[tuple[int, int, int]]], shape: Sequence[int], splits: Mapping[str, Any]
) -> TermView:
    """View a result on joined pieces in the shape of the program.

    Args:
        result: the result.
        places: for every axis of the program's shape its pieces: the axis of the result, the divisor, the size.
        shape: the program's.
        splits: the split terms.
    """
    if result.constant is not None:
        return TermView(result.term, (None,) * len(shape), tuple(shape), result.dtype, result.constant)
    split = splits.get(result.term)
    whole = split.digits if split else None

    def digit(place: int, divisor: int, size: int) -> Digit:
        axis = result.axes[place]
        if axis is None:
            return Digit(None, 1, size)
        own = whole[axis] if whole else Digit(axis, 1, size)
        return Digit(own.axis, own.divisor * divisor, size)

    term = TermView(split.term, (), (), result.dtype) if split else result
    return view_digits(term, shape, [[digit(*place) for place in group] for group in places])


def opaque_view(value: TermView) -> TermView:
    """A value as a term of its own, where its digits cannot be used."""
    return new_term(digest("whole", value.name), value.shape, value.dtype) if has_digits(value) else value


def cut_at_same_places(values: Sequence[TermView], axes: Sequence[int], role: str) -> list[Piece] | None:
    """Cut one axis of each of several values, all of one size, into pieces; None where their digits do not fit.

    Args:
        values: the operands.
        axes: the axis of each operand.
        role: role of the pieces.
    """
    sides = [axis_digits(value, axis) for value, axis in zip(values, axes, strict=True)]
    # From the innermost digit outwards: the sizes of what lies within each cut.
    cuts = {1}
    for digits in sides:
        inner = 1
        for one in reversed(digits):
            inner *= one.size
            cuts.add(inner)
    ordered = sorted(cuts)
    if any(large % small for small, large in pairwise(ordered)):
        return None
    sizes = [large // small for small, large in pairwise(ordered)][::-1]
    groups = [cut_digits(digits, sizes) for digits in sides]
    found = [group for group in groups if group is not None and all(len(one) == 1 for one in group)]
    if len(found) != len(sides):
        return None
    return [Piece(role, tuple(group[index][0] for group in found), size) for index, size in enumerate(sizes)]
