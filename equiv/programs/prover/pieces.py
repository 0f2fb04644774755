"""Pieces of arrays: slices and concatenations as terms that know what they are made of.

A slice of a concatenation is the piece that it cuts out, neighbouring slices of one array put together again are a
slice of that array, and all of them are the array. So it does not count whether weights are separate, are stacked
over layers, or stand side by side in one kernel.

A slice of what is *computed* from a concatenation, `f(concatenate([a, b]), y)[:2]`, is computed from slices of the
operands: `f(a, y[:2])`. That is done only where a concatenation is near enough (`NEAR`) to be cut between its pieces;
any other slice is a term of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from math import prod

from equiv.programs.content import digest, encode
from equiv.programs.prover.digits import (
    Digit,
    SplitTerms,
    axis_digits,
    cut_at_same_places,
    cut_digits,
    has_digits,
    join_pieces,
    opaque_view,
    split_operand,
    view_digits,
    view_joined,
)
from equiv.programs.prover.joined import split_view, whole_view
from equiv.programs.prover.parts import Again, Computed, Concatenation, Region, identity_view
from equiv.programs.prover.terms import TermView, new_term

NEAR = 48
"""Through how many operations a slice looks for a concatenation: an update of an optimizer has half as many."""


@dataclass
class Pieces:
    """Which terms are slices, concatenations, or computed from concatenations.

    Attributes:
        splits: the split terms.
        joined: term to the values that it puts together.
        regions: term to what it is a slice of.
        computed: term to what it was computed from, where there are concatenations near.
        near: term to how far the next concatenation is along each of its axes; None where there is none.
        sliced: term, axis, start and stop to that slice; None while it is being named.
        places: term and axis to where it can be cut.
    """

    splits: SplitTerms
    joined: dict[str, Concatenation] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    computed: dict[str, Computed] = field(default_factory=dict)
    near: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    sliced: dict[tuple[str, int, int, int], TermView | None] = field(default_factory=dict)
    places: dict[tuple[str, int], frozenset[int]] = field(default_factory=dict)

    def slice(self, value: TermView, axis: int, start: int, stop: int) -> TermView:
        """Slice a value along one of its axes."""
        size = stop - start
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        if shape == value.shape:
            return value
        own = value.axes[axis]
        if isinstance(own, tuple):
            return self._slice_digits(value, axis, start, stop)
        if own is None:
            return TermView(value.term, value.axes, shape, value.dtype, value.constant)
        if size == 0:
            return new_term(digest("empty", shape, value.dtype), shape, value.dtype)
        part = self._slice_term(identity_view(value), own, start, stop)
        axes = tuple(None if place == axis and size == 1 else one for place, one in enumerate(value.axes))
        return self._seen_through(TermView("", axes, shape, value.dtype), part)

    def concatenate(self, values: Sequence[TermView], axis: int) -> TermView:
        """Put values together along an axis."""
        merged: list[TermView] = []
        for value in chain(*(self._split_into_pieces(one, axis) for one in values if one.shape[axis])):
            both = self._merge(merged[-1], value, axis) if merged else None
            merged[-1:] = [both] if both is not None else [*merged[-1:], value]
        if not merged:
            return values[0]
        return merged[0] if len(merged) == 1 else self._join(merged, axis)

    def cuts(self, value: TermView, axis: int) -> list[int] | None:
        """Where the values that a concatenation puts together along an axis begin and end; None where it is none."""
        one = value.axes[axis]
        if one != 0 or value.term not in self.joined:
            return None
        return self.joined[value.term].starts

    def cut_places(self, value: TermView, axis: int) -> frozenset[int]:
        """Where near concatenations can be cut along an axis of a value, its ends left out."""
        own = value.axes[axis] if value.axes else None
        if own is None:
            return frozenset()
        first, *others = own if isinstance(own, tuple) else (Digit(own, 1, value.shape[axis]),)
        if first.axis is None:
            return frozenset()
        inner, size = prod(one.size for one in others), identity_view(value).shape[first.axis]
        if first.divisor * first.size != size:
            return frozenset()
        places = self._term_places(value.term, first.axis)
        found = {place // first.divisor * inner for place in places if place % first.divisor == 0}
        return frozenset(place for place in found if 0 < place < value.shape[axis])

    def _term_places(self, term: str, axis: int) -> frozenset[int]:
        split = self.splits.get(term)
        if split is not None and term not in self.near:
            digit = split.digits[axis]
            if digit.axis is None or (axis and split.digits[axis - 1].axis == digit.axis):
                return frozenset()
            places = self._term_places(split.term, digit.axis)
            return frozenset(place // digit.divisor for place in places if place % digit.divisor == 0)
        if (term, axis) not in self.places:
            self.places[term, axis] = frozenset()  # what is computed from itself has no more
            self.places[term, axis] = self._find_places(term, axis)
        return self.places[term, axis]

    def _find_places(self, term: str, axis: int) -> frozenset[int]:
        near = self.near.get(term)
        if near is None or near[axis] is None:
            return frozenset()
        joined = self.joined.get(term)
        if joined is not None and axis == 0:
            inside = zip(joined.starts, joined.values, strict=False)
            nested = (start + place for start, one in inside for place in self.cut_places(one, 0))
            return frozenset((*joined.starts[1:-1], *nested))
        if joined is not None:
            return frozenset[int]().union(*(self.cut_places(one, axis) for one in joined.values))
        known = self.computed[term]
        row = known.places[known.result.axes.index(axis)]
        given = zip(known.operands, row, strict=True)
        return frozenset[int]().union(*(self.cut_places(one, place) for one, place in given if place is not None))

    def record(
        self,
        result: TermView | None,
        operands: Sequence[TermView],
        places: Sequence[tuple[int | None, ...]],
        again: Again,
    ) -> None:
        """Record how a result was computed, if a concatenation is near; see `Computed`."""
        if not self.near or result is None or result.term in self.near or has_digits(result):
            return
        found: dict[int, int] = {}
        for axis, row in zip(result.axes, places, strict=True):
            ways = [self._distance(value, place) for value, place in zip(operands, row, strict=True)]
            known = [one for one in ways if one is not None and one < NEAR]
            if known and axis is not None:
                found[axis] = min(known) + 1
        if found:
            rank = sum(axis is not None for axis in result.axes)
            self.near[result.term] = tuple(found.get(axis) for axis in range(rank))
            self.computed[result.term] = Computed(result, tuple(operands), tuple(places), again)

    def _distance(self, value: TermView, place: int | None) -> int | None:
        """How far the next concatenation along an axis of a value is."""
        axis = value.axes[place] if place is not None and value.axes else None
        if axis is None or isinstance(axis, tuple):
            return None
        split = self.splits.get(value.term)
        if split is not None and value.term not in self.near:
            digit = split.digits[axis]
            known = self.near.get(split.term) if axis == 0 or split.digits[axis - 1].axis != digit.axis else None
            return known[digit.axis] if known and digit.axis is not None else None
        known = self.near.get(value.term)
        return known[axis] if known else None

    def _slice_term(self, own: TermView, axis: int, start: int, stop: int) -> TermView:
        """Slice a term, given in its identity view, along one of its axes; the result has as many axes."""
        key = own.term, axis, start, stop
        if key not in self.sliced:
            self.sliced[key] = None
            self.sliced[key] = self._find_slice(own, axis, start, stop)
        # What is computed from its own slice, as `(x + y) - y` under a rewrite, is a term of its own.
        return self.sliced[key] or self._region(own, axis, start, stop)

    def _find_slice(self, own: TermView, axis: int, start: int, stop: int) -> TermView:
        joined = self.joined.get(own.term)
        if joined is not None and axis == 0:
            ends = zip(joined.values, pairwise(joined.starts), strict=True)
            cut = [(one, max(start - low, 0), min(stop, high) - low) for one, (low, high) in ends]
            return self.concatenate([self.slice(one, 0, low, high) for one, low, high in cut if low < high], 0)
        if joined is not None:
            return self.concatenate([self.slice(one, axis, start, stop) for one in joined.values], 0)
        known = self.near.get(own.term)
        if known and known[axis] is not None and own.term in self.computed:
            found = self._compute_slice(own, axis, start, stop)
            if found is not None:
                return found
        split = self.splits.get(own.term)
        if split is not None and (axis == 0 or split.digits[axis - 1].axis != split.digits[axis].axis):
            return split_view(self.slice(whole_view(own, self.splits), axis, start, stop), self.splits)
        return self._region(own, axis, start, stop)

    def _compute_slice(self, own: TermView, axis: int, start: int, stop: int) -> TermView | None:
        """Compute a slice of a result from slices of the operands."""
        known = self.computed[own.term]
        place = known.result.axes.index(axis)
        operands = [
            value if one is None else self.slice(value, one, start, stop)
            for value, one in zip(known.operands, known.places[place], strict=True)
        ]
        shape = known.result.shape
        result = known.again(operands, (*shape[:place], stop - start, *shape[place + 1 :]))
        if result is None:
            return None
        if not result.shape:  # a number stands for itself repeated
            result = TermView(result.term, (None,) * len(shape), shape, result.dtype, result.constant)
        order = [known.result.axes.index(one) for one in range(len(own.shape))]
        if any(one is not None for index, one in enumerate(result.axes) if index not in order):
            return None
        sizes = tuple(stop - start if one == axis else size for one, size in enumerate(own.shape))
        return TermView(result.term, tuple(result.axes[one] for one in order), sizes, result.dtype, result.constant)

    def _region(self, own: TermView, axis: int, start: int, stop: int) -> TermView:
        """A slice that is a term of its own; a slice of a slice is one of the whole."""
        known = self.regions.get(own.term)
        region = known or Region(own, tuple((0, size) for size in own.shape))
        within = region.axes[axis]
        first = region.bounds[within][0]
        bounds = (*region.bounds[:within], (first + start, first + stop), *region.bounds[within + 1 :])
        cut = Region(region.whole, bounds)
        term = digest("part", cut.whole.term, cut.whole.shape, bounds)
        self.regions.setdefault(term, cut)
        sizes = tuple(stop - start if one == axis else size for one, size in enumerate(own.shape))
        numbers = iter(range(len(sizes)))
        return TermView(term, tuple(None if size == 1 else next(numbers) for size in sizes), sizes, own.dtype)

    def _slice_digits(self, value: TermView, axis: int, start: int, stop: int) -> TermView:
        """Slice along an axis that has digits: along the outermost of them, if whole turns of the others are cut."""
        shape = (*value.shape[:axis], stop - start, *value.shape[axis + 1 :])
        first, *others = value.axes[axis]
        inner = prod(one.size for one in others)
        own = identity_view(value)
        aligned = start % inner == 0 and stop % inner == 0 and stop > start
        if not aligned or (first.axis is not None and first.divisor * first.size != own.shape[first.axis]):
            return self._slice_split(value, axis, start, stop)
        digits = [axis_digits(value, index) for index in range(len(shape))]
        digits[axis] = [first._replace(size=(stop - start) // inner), *others]
        digits[axis] = [one for one in digits[axis] if one.size != 1]
        if first.axis is not None:
            own = self._slice_term(own, first.axis, start // inner * first.divisor, stop // inner * first.divisor)
        return self.seen_through_digits(digits, shape, own)

    def _slice_split(self, value: TermView, axis: int, start: int, stop: int) -> TermView:
        """Slice along an axis of digits that is none of the term's: the axis of a split term, or of the whole value."""
        single = all(len(axis_digits(value, index)) < 2 for index in range(len(value.shape)))
        plain = split_view(value, self.splits) if single else opaque_view(value)
        if has_digits(plain):
            plain = opaque_view(plain)
        own, place = identity_view(plain), plain.axes[axis]
        if stop == start:
            return self.slice(plain, axis, start, stop)
        part = self._region(own, place, start, stop)
        axes = tuple(None if one == place and stop - start == 1 else one for one in plain.axes)
        shape = (*value.shape[:axis], stop - start, *value.shape[axis + 1 :])
        return self._seen_through(TermView("", axes, shape, value.dtype), part)

    def _seen_through(self, view: TermView, own: TermView) -> TermView:
        """View a value, given on the axes of a term, through a view of that term."""
        if has_digits(view):
            digits = [axis_digits(view, index) for index in range(len(view.shape))]
            return self.seen_through_digits(digits, view.shape, own)
        axes = tuple(None if axis is None else own.axes[axis] for axis in view.axes)
        return TermView(own.term, axes, view.shape, own.dtype, own.constant)

    def seen_through_digits(self, view: Sequence[Sequence[Digit]], shape: tuple[int, ...], own: TermView) -> TermView:
        """View a value by digits of its axes, which may have digits of their own."""
        own = whole_view(own, self.splits)
        groups: list[list[Digit]] = []
        for digits in view:
            found: list[Digit] = []
            for one in digits:
                if one.axis is None:
                    found.append(one)
                    continue
                sizes = (own.shape[one.axis] // (one.divisor * one.size), one.size, one.divisor)
                cut = cut_digits(axis_digits(own, one.axis), sizes)
                if cut is None:
                    return self.seen_through_digits(view, shape, opaque_view(own))
                found += cut[1]
            groups.append(found)
        return view_digits(own, shape, groups)

    def _split_into_pieces(self, value: TermView, axis: int) -> list[TermView]:
        """The values that a value puts together along this axis; the value itself where it is no concatenation."""
        cuts = self.cuts(value, axis)
        return [value] if cuts is None else [self.slice(value, axis, *ends) for ends in pairwise(cuts)]

    def _merge(self, one: TermView, other: TermView, axis: int) -> TermView | None:
        """Two neighbours as one value: equal elements, or neighbouring slices of one array; else None."""
        size = one.shape[axis] + other.shape[axis]
        shape = (*one.shape[:axis], size, *one.shape[axis + 1 :])
        if one.term == other.term and one.axes == other.axes and one.axes[axis] is None:
            return TermView(one.term, one.axes, shape, one.dtype, one.constant)
        ours, theirs = self._as_region(one), self._as_region(other)
        if ours is None or theirs is None or ours.whole.term != theirs.whole.term:
            return None
        pairs = list(zip(ours.bounds, theirs.bounds, strict=True))
        different = [index for index, (left, right) in enumerate(pairs) if left != right]
        if len(different) != 1 or pairs[different[0]][0][1] != pairs[different[0]][1][0]:
            return None
        (along,) = different
        # On this axis each of the two has the cut axis, or nothing where it is one element; elsewhere they are equal.
        views = [
            [None if place is None else region.axes[place] for place in value.axes]
            for value, region in ((one, ours), (other, theirs))
        ]
        for view, value, (start, stop) in zip(views, (one, other), pairs[along], strict=True):
            # A slice that is repeated has nothing there either, and is longer.
            if value.shape[axis] != stop - start or view[axis] != (along if stop - start != 1 else None):
                return None
            view[axis] = along
        if views[0] != views[1] or views[0].count(along) != 1:
            return None
        bounds = pairs[along][0][0], pairs[along][1][1]
        part = ours.whole
        for index, (left, _) in enumerate(pairs):
            part = self.slice(part, index, *(bounds if index == along else left))
        # All columns of a split axis are that axis again.
        return whole_view(self._seen_through(TermView("", tuple(views[0]), shape, one.dtype), part), self.splits)

    def _as_region(self, value: TermView) -> Region | None:
        return None if has_digits(value) else self.regions.get(value.term)

    def _join(self, values: Sequence[TermView], axis: int) -> TermView:
        """A new term that puts values together, named as if none of its other axes had been reshaped."""
        values = [opaque_view(one) if isinstance(one.axes[axis], tuple) else one for one in values]
        others = [index for index in range(len(values[0].shape)) if index != axis]
        groups = [cut_at_same_places(values, [index] * len(values), "") for index in others]
        if None in groups:
            values = [opaque_view(one) for one in values]
            groups = [cut_at_same_places(values, [index] * len(values), "") for index in others]
        found = [group or [] for group in groups]
        joined = join_pieces(list(chain(*found)))
        along = [(axis_digits(one, axis) or [Digit(None, 1, 1)])[0] for one in values]
        parts = [
            split_operand(
                one, [along[side], *(piece.digits[side] or Digit(None, 1, 1) for piece in joined.pieces)], self.splits
            )
            for side, one in enumerate(values)
        ]
        result = self._join_parts(parts)
        places = iter(joined.places)
        seen = [
            [(place + 1, divisor, piece.size) for piece, (place, divisor) in zip(group, places, strict=False)]
            for group in found
        ]
        size = sum(one.shape[axis] for one in values)
        shape = (*values[0].shape[:axis], size, *values[0].shape[axis + 1 :])
        seen.insert(axis, [(0, 1, size)])
        return view_joined(result, seen, shape, self.splits)

    def _join_parts(self, parts: Sequence[TermView]) -> TermView:
        """Put values without digits together along their first axis."""
        rank = len(parts[0].shape)
        real = [index for index in range(1, rank) if any(one.axes[index] is not None for one in parts)]

        # As in `apply_elementwise`: in which order the axes are written does not count.
        def signature(index: int) -> list[bytes]:
            return [encode(one.term, one.axes[index]) for one in parts]

        order = [0, *sorted(real, key=signature)]
        own = tuple(
            TermView(
                one.term, tuple(one.axes[i] for i in order), tuple(one.shape[i] for i in order), one.dtype, one.constant
            )
            for one in parts
        )
        term = digest("concatenate", [(one.term, one.axes, one.shape, one.dtype) for one in own])
        if term not in self.joined:
            self.joined[term] = Concatenation(own)
            ways = [[self._distance(one, index) for one in own] for index in range(1, len(order))]
            known = [[one for one in row if one is not None and one < NEAR] for row in ways]
            self.near[term] = (0, *(min(row) + 1 if row else None for row in known))
        place = {index: number for number, index in enumerate(order)}
        size = sum(one.shape[0] for one in parts)
        return TermView(term, tuple(place.get(i) for i in range(rank)), (size, *parts[0].shape[1:]), parts[0].dtype)
