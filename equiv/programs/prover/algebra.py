"""Sums and products in normal form, for the rewrites of real arithmetic that are enabled (`conditions.py`).

Products are multisets of factors with powers, sums are multisets of terms with coefficients, in a normal form.
Coefficients are computed in float64 and count as equal to twelve digits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equiv.programs.content import digest
from equiv.programs.prover.conditions import TWO_PASS
from equiv.programs.prover.contractions import Contraction
from equiv.programs.prover.digits import SplitTerm
from equiv.programs.prover.joined import NumberElementwise, join_elementwise, join_weighted, split_view, whole_view
from equiv.programs.prover.moves import distribute
from equiv.programs.prover.pieces import Pieces
from equiv.programs.prover.terms import TermView, apply_elementwise, constant_view, on_term, seen_through

LONG_SUM = 8
"""Number of terms above which a sum can be closed: two blocks of a transformer, with their biases."""


@dataclass(frozen=True)
class Product:
    """A constant times factors with powers, each viewed on the axes of the product's own term."""

    constant: float
    factors: tuple[tuple[TermView, float], ...]


@dataclass(frozen=True)
class Sum:
    """A constant plus terms with coefficients, each viewed on the axes of the sum's own term."""

    constant: float
    terms: tuple[tuple[TermView, float], ...]


@dataclass(frozen=True)
class ReducedSum:
    """A sum over axes of a value."""

    value: TermView
    over: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many elements are summed."""
        return int(np.prod([self.value.shape[axis] for axis in self.over], dtype=int))


@dataclass(frozen=True)
class OneHot:
    """A mask `arange(size) == index` along an axis of its term; the index on the axes of that term."""

    index: TermView
    axis: int
    size: int


Scaled = tuple[TermView, float]
"""A factor and its power, or a term and its coefficient."""


@dataclass
class Algebra:
    """The enabled rewrites, and how each term was made.

    Attributes:
        rules: the enabled rewrites.
        made: term to the product, sum or reduction that it is.
        splits: split term to what is split, and to which sizes.
        contracted: term to the contraction that it is.
        pieces: slices and concatenations.
        counted: index that is counted from the end where it is negative, to the index itself.
        ranges: term of whole numbers to the smallest and the largest that it can have, where that is known.
        arrays: term to its array, where no input decides it.
        contents: mask that no input decides to its view of the term that is named by content.
        positions: term that counts from 0 along its one axis to its size.
        one_hot: mask that is true at one place at most of an axis to that axis and the index.
        exponentials: results of `exp` of real numbers.
        maximal: maxima over axes.
        finite: whether a maximum is finite to that maximum.
        masked: masked logits to the mask and the logits, and whether what is in place of the others is far below them.
        maxima: maximum of masked logits to the name of those that are kept, and the rewrite that this takes.
        opposites: opposite of a mask to the mask.
        remainders: product in a view to what is left of it without each of its factors.
        units: sum, and whether its sign comes out, to its leading coefficient and the rest on its own axes, if any.
        closes: whether a long sum that something else than a sum takes is a term of its own in sums after it.
        closed: these sums.
        kept_closed: whether any of them was left as it is in another sum.
        applied: the rewrites that have applied so far; without the others every name would be the same.
        far_slices: see `Pieces.far`.
    """

    rules: frozenset[str] = frozenset()
    made: dict[str, Product | Sum | ReducedSum] = field(default_factory=dict)
    splits: dict[str, SplitTerm] = field(default_factory=dict)
    contracted: dict[str, Contraction] = field(default_factory=dict)
    counted: dict[str, TermView] = field(default_factory=dict)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    contents: dict[str, TermView] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    one_hot: dict[str, OneHot] = field(default_factory=dict)
    exponentials: set[str] = field(default_factory=set)
    maximal: set[str] = field(default_factory=set)
    finite: dict[str, TermView] = field(default_factory=dict)
    masked: dict[str, tuple[TermView, TermView, bool]] = field(default_factory=dict)
    maxima: dict[str, tuple[str, str]] = field(default_factory=dict)
    opposites: dict[str, TermView] = field(default_factory=dict)
    remainders: dict[tuple[str, tuple[Any, ...]], list[tuple[str, TermView]]] = field(default_factory=dict)
    units: dict[tuple[str, bool], tuple[float, TermView | None]] = field(default_factory=dict)
    closes: bool = False
    closed: set[str] = field(default_factory=set)
    kept_closed: bool = False
    applied: set[str] = field(default_factory=set)
    far_slices: bool = False
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.splits, self.far_slices)

    def record(self, value: TermView | None, *rules: str) -> TermView | None:
        """Return a value that these rewrites made, and record that they applied; None stays None."""
        if value is not None:
            self.applied.update(rules)
        return value

    def close(self, value: TermView) -> None:
        """Take a long sum for a term of its own from now on: a residual stream would have a term for each block."""
        split = self.splits.get(value.term)
        term = split.term if split else value.term
        known = self.made.get(term)
        if isinstance(known, Sum) and term not in self.closed and len(known.terms) > LONG_SUM:
            self.closed.add(term)
            # What is left of it without its leading coefficient stands for it in sums and products.
            self.units[term, True] = _, base = self._find_unit(known, value.dtype, whole=True)
            if base is not None:
                self.closed.add(base.term)

    def count_terms(self, value: TermView) -> int:
        """How many terms a value is in a sum."""
        known = None if self._is_closed(value.term) else self._known(value.term)
        return len(known.terms) if isinstance(known, Sum) else 1

    def _is_closed(self, term: str) -> bool:
        split = self.splits.get(term)
        return (split.term if split else term) in self.closed

    def definition(self, value: TermView) -> Product | Sum | None:
        """The product or sum that a value is, its operands viewed through the value's own view."""
        known = self._known(value.term)
        if isinstance(known, Product):
            return Product(known.constant, tuple((seen_through(value, one), power) for one, power in known.factors))
        if isinstance(known, Sum):
            return Sum(known.constant, tuple((seen_through(value, one), scale) for one, scale in known.terms))
        return None

    def _known(self, term: str) -> Product | Sum | ReducedSum | None:
        """How a term was made, its operands viewed on its own axes."""
        return self.made.get(term) or self._split_definition(term)

    def _split_definition(self, term: str) -> Product | Sum | None:
        """A split term is made of the split operands of the whole term."""
        split = self.splits.get(term)
        whole = self.made.get(split.term) if split else None
        if split is None or not isinstance(whole, Product | Sum):
            return None
        given = whole.factors if isinstance(whole, Product) else whole.terms
        parts = tuple((split.split_operand(value, self.splits), number) for value, number in given)
        found = type(whole)(whole.constant, parts)
        self.made[term] = found
        return found

    def product(self, constant: float, given: Iterable[tuple[TermView, float]], shape: Any, dtype: str) -> TermView:
        """Make a product in normal form: flat, factors merged, one constant, leading coefficients of sums one."""
        if joined := join_weighted(self.product, constant, given := tuple(given), shape, dtype, self.splits):
            return joined
        merged: dict[tuple[str, tuple[Any, ...]], tuple[TermView, float]] = {}
        for value, power in self._factors(given):
            # A negative constant has no root and zero no reciprocal: there it stays a factor, whatever the others are.
            if value.constant is not None and (value.constant > 0 or (power > 0 and float(power).is_integer())):
                constant *= float(value.constant) ** power
                continue
            scale, base = self._unit_sum(value, float(power).is_integer())
            constant *= scale**power
            # A scalar has no axes, but is the same factor as when it is repeated over the shape.
            key = base.term, base.axes or (None,) * len(shape)
            known = merged.get(key, (base, 0.0))[1]
            # A mask is its own square, cube and so on.
            merged[key] = (base, 1.0 if base.dtype == "bool" else known + power)
        # x / x is gone; that x is not zero is the condition of the rewrite.
        factors = tuple((value, power) for value, power in merged.values() if power)
        if not factors or constant == 0:
            return constant_view(np.asarray(constant, dtype), shape)
        (value, power), single = factors[0], len(factors) == 1
        if single and power == 1 and value.dtype == dtype and value.shape == shape:
            if constant == 1:
                return value
            closed = self._is_closed(value.term)
            self.kept_closed |= closed
            inside = None if closed else self.definition(value)
            if isinstance(inside, Sum):
                return self.sum(constant * inside.constant, [(v, constant * c) for v, c in inside.terms], shape, dtype)
        return self._make(Product, constant, factors, [power for _, power in factors], shape, dtype)

    def sum(self, constant: float, given: Iterable[tuple[TermView, float]], shape: Any, dtype: str) -> TermView:
        """Make a sum in normal form: flat, equal terms merged."""
        if joined := join_weighted(self.sum, constant, given := tuple(given), shape, dtype, self.splits):
            return joined
        merged: dict[tuple[str, tuple[Any, ...]], tuple[TermView, float, float]] = {}
        for value, scale in self._terms(given):
            if value.constant is not None:
                constant += scale * float(value.constant)
                continue
            # The view counts: x and x.T are two terms of a sum.
            key = value.term, value.axes or (None,) * len(shape)
            _, known, size = merged.get(key, (value, 0.0, 0.0))
            merged[key] = (value, known + scale, max(size, abs(scale)))
        # A term that cancels leaves a rounding error; one merely smaller than others, or infinite, stays.
        kept = [one for one in merged.values() if not abs(one[1]) <= 1e-14 * one[2] < np.inf]
        terms = tuple((value, scale) for value, scale, _ in kept)
        if TWO_PASS in self.rules and (factored := self._factor_centred(terms, shape, dtype)) is not None:
            self.applied.add(TWO_PASS)
            return self.sum(constant, factored, shape, dtype)
        if not terms:
            return constant_view(np.asarray(constant, dtype), shape)
        if len(terms) == 1 and constant == 0 and (terms[0][1] != 1 or terms[0][0].shape == shape):
            return self.product(terms[0][1], [(terms[0][0], 1.0)], shape, dtype)
        return self._make(Sum, constant, terms, [round_coefficient(scale) for _, scale in terms], shape, dtype)

    def _make(
        self,
        kind: type[Product] | type[Sum],
        constant: float,
        parts: Sequence[Scaled],
        tags: Sequence[float],
        shape: Any,
        dtype: str,
    ) -> TermView:
        again = self.product if kind is Product else self.sum
        numbers = [number for _, number in parts]
        cut = distribute(
            self.pieces,
            [value for value, _ in parts],
            tuple(shape),
            lambda values, own: again(constant, zip(values, numbers, strict=True), own, dtype),
        )
        if cut is not None:
            return cut

        def make(operands: Sequence[TermView], own: tuple[int, ...]) -> TermView:
            operation = (kind.__name__.lower(), round_coefficient(constant))
            result = apply_elementwise(operation, operands, own, dtype, True, tags)
            if result.term not in self.made:
                own_views = on_term(operands, result)
                self.made[result.term] = kind(constant, tuple(zip(own_views, numbers, strict=True)))
            return result

        return self.join([value for value, _ in parts], tuple(shape), make)

    def join(self, operands: Sequence[TermView], shape: tuple[int, ...], make: NumberElementwise) -> TermView:
        """Name an elementwise operation on whole terms, where that is possible, though its operands are split."""
        if not any(value.term in self.splits for value in operands):
            return make(list(operands), shape)
        whole = [whole_view(value, self.splits) for value in operands]
        return split_view(join_elementwise(whole, shape, self.splits, make), self.splits)

    def _factor_centred(self, terms: Sequence[Scaled], shape: Any, dtype: str) -> list[Scaled] | None:
        """Rewrite `x * c - mean(x) * c` as `(x - mean(x)) * c`, as in the derivative of a variance."""
        if not any(self._has_sum(value) for value, _ in terms):
            return None
        places: dict[str, list[tuple[int, TermView]]] = {}
        for index, (value, _) in enumerate(terms):
            for rest, one in self._remainders(value, len(shape)):
                places.setdefault(rest, []).append((index, one))
        # Alone is what has nothing in common with another term.
        for found in (found for found in places.values() if len(found) > 1):
            for place, mean in (one for one in found if isinstance(self.made.get(one[1].term), ReducedSum)):
                for other, x in found:
                    ratio = terms[place][1] / terms[other][1]
                    if other != place and self._is_mean(mean, x, ratio):
                        inside = self.definition(terms[other][0])
                        assert isinstance(inside, Product)
                        centred = self.sum(0.0, [(x, 1.0), (mean, ratio)], shape, dtype)
                        factors = [(centred if one == x else one, power) for one, power in inside.factors]
                        made = self.product(1.0, factors, shape, dtype), terms[other][1]
                        return [made, *(term for index, term in enumerate(terms) if index not in (place, other))]
        return None

    def _has_sum(self, value: TermView) -> bool:
        known = self.made.get(value.term)
        factors = known.factors if isinstance(known, Product) else ()
        return len(factors) > 1 and any(isinstance(self.made.get(one.term), ReducedSum) for one, _ in factors)

    def _remainders(self, value: TermView, rank: int) -> list[tuple[str, TermView]]:
        """For each factor of a product that is no power: a name for the others, and the factor."""
        key = value.term, value.axes
        if key not in self.remainders:
            inside = self.definition(value)
            factors = inside.factors if isinstance(inside, Product) and len(inside.factors) > 1 else ()
            names = [digest(one.term, one.axes or (None,) * rank, power) for one, power in factors]
            self.remainders[key] = [
                (digest(sorted(names[:place] + names[place + 1 :])), one)
                for place, (one, power) in enumerate(factors)
                if power == 1
            ]
        return self.remainders[key]

    def _is_mean(self, mean: TermView, x: TermView, ratio: float) -> bool:
        """Whether a sum over axes, times this number, is minus the mean of a value."""
        summed = self.made[mean.term]
        assert isinstance(summed, ReducedSum)
        scale, base = self.unit(summed.value)
        return x.term == base.term and round_coefficient(-ratio * summed.count * scale) == 1

    def unit(self, value: TermView) -> tuple[float, TermView]:
        """A value as a number and a value whose own constant, or leading coefficient, is one."""
        known = self._known(value.term)
        if isinstance(known, Product) and round_coefficient(known.constant) != 1:
            inside = self.definition(value)
            assert isinstance(inside, Product)
            return inside.constant, self.product(1.0, inside.factors, value.shape, value.dtype)
        return self._unit_sum(value, whole=True)

    def _factors(self, given: Iterable[tuple[TermView, float]]) -> Iterable[tuple[TermView, float]]:
        for value, power in given:
            inside = self.definition(value) if value.dtype != "bool" else None
            if isinstance(inside, Product) and float(power).is_integer():
                yield constant_view(np.asarray(inside.constant), value.shape), power
                yield from ((one, inner * power) for one, inner in inside.factors)
            elif isinstance(inside, Product) and inside.constant > 0 and inside.constant != 1:
                # Of a root only the constant comes out: sqrt(x * x) is not x, nor sqrt(x * y) sqrt(x) * sqrt(y).
                yield constant_view(np.asarray(inside.constant), value.shape), power
                yield self.product(1.0, inside.factors, value.shape, value.dtype), power
            else:
                yield value, power

    def _terms(self, given: Iterable[Scaled]) -> Iterable[Scaled]:
        for value, scale in given:
            known = self._known(value.term)
            if isinstance(known, Sum) and self._is_closed(value.term):
                self.kept_closed = True
                factor, base = self._unit_sum(value, whole=True)
                yield base, scale * factor
            elif isinstance(known, Sum):
                # Its terms are in normal form: no sums, no products with a constant.
                yield constant_view(np.asarray(known.constant), value.shape), scale
                yield from ((seen_through(value, one), scale * weight) for one, weight in known.terms)
            elif isinstance(known, Product) and known.constant != 1:
                factors = [(seen_through(value, one), power) for one, power in known.factors]
                yield self.product(1.0, factors, value.shape, value.dtype), scale * known.constant
            else:
                yield value, scale

    def _unit_sum(self, value: TermView, whole: bool) -> tuple[float, TermView]:
        """A sum as a factor has a leading one: `2a + 2b` is 2 times `a + b`. Under a root its sign stays inside."""
        known = self._known(value.term)
        if not isinstance(known, Sum):
            return 1.0, value
        if (value.term, whole) not in self.units:
            self.units[value.term, whole] = self._find_unit(known, value.dtype, whole)
        scale, base = self.units[value.term, whole]
        return (1.0, value) if base is None else (scale, seen_through(value, base))

    def _find_unit(self, known: Sum, dtype: str, whole: bool) -> tuple[float, TermView | None]:
        # The same in every view of the sum, and after it is divided: by term, and of one term's views the largest.
        first = min(one.term for one, _ in known.terms)
        _, scale = max((abs(weight), weight) for one, weight in known.terms if one.term == first)
        scale = scale if whole else abs(scale)
        # Divided by a number out of this range, other coefficients could get too small to be numbers.
        if round_coefficient(scale) == 1 or not 1e-100 < abs(scale) < 1e100:
            return 1.0, None
        terms = [(one, weight / scale) for one, weight in known.terms]
        return scale, self.sum(known.constant / scale, terms, known.terms[0][0].shape, dtype)


def round_coefficient(value: float) -> float:
    """Round a coefficient to twelve digits."""
    # Coarser than float64's rounding of a few constants, far finer than what float32 can tell apart.
    return float(f"{value:.12g}") + 0.0  # minus zero, as of zero divided by a negative coefficient, is zero


def as_powers(
    name: str, params: dict[str, Any], ins: Sequence[TermView]
) -> tuple[float, list[tuple[TermView, float]]] | None:
    """Write an operation as a constant and factors with powers; None where it is no product."""
    if name == "mul":
        return 1.0, [(ins[0], 1.0), (ins[1], 1.0)]
    if name == "div":
        return 1.0, [(ins[0], 1.0), (ins[1], -1.0)]
    if name == "neg":
        return -1.0, [(ins[0], 1.0)]
    known = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5}
    power = float(params["y"]) if name == "integer_pow" else known.get(name)
    return None if power is None else (1.0, [(ins[0], power)])
