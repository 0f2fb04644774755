"""Pieces of arrays: slices and concatenations as terms that know what they are made of.

A slice of a concatenation is the piece that it cuts out, neighbouring slices of one array put together again are a
slice of that array, and all of them are the array. So it does not count whether weights are separate, are stacked
over layers, or stand side by side in one kernel.

A slice of what is *computed* element by element is computed from slices: `f(concatenate([a, b]), y)[:2]` is
`f(a, y[:2])`. That is done where a concatenation is near enough (`NEAR`) to be cut between its pieces. Where two
programs slice otherwise (`far_slices.py`) it is tried without one too: a head on all positions of which one is taken is
the head on that position. Any other slice is a term of its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from math import prod

from equiv.programs.content import digest
from equiv.programs.prover.concatenations import join_values, merge_neighbours
from equiv.programs.prover.digits import (
    Digit,
    SplitTerms,
    axis_digits,
    cut_digits,
    has_digits,
    opaque_view,
    view_digits,
)
from equiv.programs.prover.joined import split_view, whole_view
from equiv.programs.prover.parts import DEEP, NEAR, Again, Computed, Concatenation, Region, identity_view, kept_axes
from equiv.programs.prover.terms import TermView, new_term

MANY = 256
"""How many slices of a term are computed at most, and into how many pieces an operation is cut."""


@dataclass
class Pieces:
    """Which terms are slices, concatenations, or computed from concatenations.

    Attributes:
        splits: the split terms.
        far: whether slices are computed from slices where no concatenation is near.
        joined: term to the values that it puts together.
        regions: term to what it is a slice of.
        computed: term to what it was computed from, where a slice of it may be computed.
        near: term to how many contractions away the concatenations along each of its axes are; None: there are none.
        numbers: terms that are masks as numbers, of which every slice is that of the mask.
        sliced: term, axis, start and stop to that slice; None while it is being named.
        places: term and axis to where it can be cut.
        counts: term to how many of its slices were computed.
        depth: how many operations the slice that is named now is away from the one that was asked for.
    """

    splits: SplitTerms
    far: bool = False
    joined: dict[str, Concatenation] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    computed: dict[str, Computed] = field(default_factory=dict)
    near: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set[str])
    sliced: dict[tuple[str, int, int, int], TermView | None] = field(default_factory=dict)
    places: dict[tuple[str, int], frozenset[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter[str])
    depth: int = 0

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
        return self.seen_through(TermView("", axes, shape, value.dtype), part)

    def concatenate(self, values: Sequence[TermView], axis: int) -> TermView:
        """Put values together along an axis."""
        merged: list[TermView] = []
        for value in chain(*(self._split_into_pieces(one, axis) for one in values if one.shape[axis])):
            both = merge_neighbours(self, merged[-1], value, axis) if merged else None
            merged[-1:] = [both] if both is not None else [*merged[-1:], value]
        if not merged:
            return values[0]
        return merged[0] if len(merged) == 1 else join_values(self, merged, axis)

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
        if not self._is_near(term, axis):
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
        steps: int = 0,
    ) -> None:
        """Record how a result was computed, see `Computed`, and how far concatenations are.

        Args:
            result: what was computed.
            operands: from what.
            places: see `Computed`.
            again: see `Computed`.
            steps: how many contractions that is. Nothing else counts: `m * x / c` and `select(m, x / c, 0)` are one
                term, and a term that is near in one program has to be near in the other.
        """
        if result is None or has_digits(result) or result.term in self.computed or result.term in self.joined:
            return
        is_mask = len(operands) == 1 and operands[0].dtype == "bool" != result.dtype and bool(result.axes)
        if is_mask:
            # `m * x` and `select(m, x, 0)` are one term, and so are their slices only if those of the mask are.
            self.numbers.add(result.term)
        if not (self.near or self.far or is_mask):
            return
        if (self.far or is_mask) and all(one.term != result.term for one in operands):
            self.computed[result.term] = Computed(result, tuple(operands), tuple(places), again)
        found: dict[int, int] = {}
        for axis, row in zip(result.axes, places, strict=True):
            ways = [self.distance(value, place) for value, place in zip(operands, row, strict=True)]
            known = [one for one in ways if one is not None]
            if known and axis is not None:
                # The farthest counts: along a residual stream the first concatenation would be near for ever.
                found[axis] = min(max(known) + steps, NEAR)
        if found:
            rank = sum(axis is not None for axis in result.axes)
            self.near[result.term] = tuple(found.get(axis) for axis in range(rank))
            self.computed[result.term] = Computed(result, tuple(operands), tuple(places), again)

    def distance(self, value: TermView, place: int | None) -> int | None:
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
        far = own.term in self.computed and not self._is_near(own.term, axis)
        if far and key not in self.sliced and self.depth > DEEP:
            return self._region(own, axis, start, stop)  # not kept: asked for by itself it is computed
        if key not in self.sliced:
            self.sliced[key] = None
            self.depth += 1
            self.sliced[key] = self._find_slice(own, axis, start, stop)
            self.depth -= 1
        # What is computed from its own slice, as `(x + y) - y` under a rewrite, is a term of its own.
        return self.sliced[key] or self._region(own, axis, start, stop)

    def _is_near(self, term: str, axis: int) -> bool:
        """Whether a concatenation along an axis of a term is near."""
        known = (self.near.get(term) or {axis: None})[axis]
        return known is not None and known < NEAR

    def _find_slice(self, own: TermView, axis: int, start: int, stop: int) -> TermView:
        joined = self.joined.get(own.term)
        if joined is not None and axis == 0:
            ends = zip(joined.values, pairwise(joined.starts), strict=True)
            cut = [(one, max(start - low, 0), min(stop, high) - low) for one, (low, high) in ends]
            return self.concatenate([self.slice(one, 0, low, high) for one, low, high in cut if low < high], 0)
        if joined is not None:
            return self.concatenate([self.slice(one, axis, start, stop) for one in joined.values], 0)
        cuts = self._is_near(own.term, axis) or own.term in self.numbers or (self.far and self.counts[own.term] < MANY)
        if own.term in self.computed and cuts:
            self.counts[own.term] += 1
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
        part = TermView(result.term, tuple(result.axes[one] for one in order), sizes, result.dtype, result.constant)
        self._record_part(own, part, axis, start)
        return part

    def _record_part(self, own: TermView, part: TermView, axis: int, start: int) -> None:
        """Record that a computed slice is a part of a term, so that neighbours are put together again."""
        repeated = any((axis is None) != (size == 1) for axis, size in zip(part.axes, part.shape, strict=True))
        if part.constant is not None or repeated:
            return
        region = self.regions.get(own.term) or _all_of(own)
        bounds = list(region.bounds)
        within = region.axes[axis]
        first = bounds[within][0] + start
        bounds[within] = first, first + part.shape[axis]
        order = sorted((place, region.axes[number]) for number, place in enumerate(part.axes) if place is not None)
        self.regions.setdefault(part.term, Region(region.whole, tuple(bounds), tuple(whole for _, whole in order)))

    def _region(self, own: TermView, axis: int, start: int, stop: int) -> TermView:
        """A slice that is a term of its own; a slice of a slice is one of the whole."""
        known = self.regions.get(own.term)
        region = known if known is not None and known.axes == kept_axes(known.bounds) else _all_of(own)
        within = region.axes[axis]
        first = region.bounds[within][0]
        bounds = (*region.bounds[:within], (first + start, first + stop), *region.bounds[within + 1 :])
        cut = Region(region.whole, bounds, kept_axes(bounds))
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
        return self.seen_through(TermView("", axes, shape, value.dtype), part)

    def seen_through(self, view: TermView, own: TermView) -> TermView:
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


def _all_of(own: TermView) -> Region:
    return Region(own, tuple((0, size) for size in own.shape), tuple(range(len(own.shape))))
