"""Named rewrites of real arithmetic: equalities of exact numbers that rounding breaks.

Each holds under its condition in `CONDITIONS`. A proof that needs one names it (`proved modulo`); none is silent.
Products are multisets of factors with powers, sums are multisets of terms with coefficients, in a normal form.
Coefficients are computed in float64 and count as equal to twelve digits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equiv.programs.content import digest
from equiv.programs.prover.terms import TermView, apply_elementwise, constant_view, on_term, seen_through

REORDERED_PRODUCTS = "products in another order"

REORDERED_SUMS = "sums in another order"

LINEAR = "scale commutes with sums and contractions"

MASKS = "a mask multiplies or selects"

TWO_PASS = "variance in one or two passes"

POSITIVE = "a variance is not negative"

CONDITIONS = {
    REORDERED_PRODUCTS: "a*b*c in any order, x/sqrt(v) = x*rsqrt(v), x/c = x*(1/c): values finite, no division by zero",
    REORDERED_SUMS: "a+b+c in any order, a-b = a+(-b): values finite",
    LINEAR: "sum(c*x) = c*sum(x), dot(c*x, w) = c*dot(x, w): c the same along the summed axes",
    MASKS: "where(m, x, 0) = m*x: x finite",
    TWO_PASS: "sum((x - mean(x))**2) = sum(x**2) - sum(x)**2/n: values finite",
    POSITIVE: "max(0, v) = v, v > 0 for v = mean(x**2) - mean(x)**2: x is not constant along the summed axes",
}
"""Rewrite to the condition under which it holds."""


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


@dataclass
class Algebra:
    """The enabled rewrites, and how each term was made.

    Attributes:
        rules: the enabled rewrites.
        made: term to the product, sum or reduction that it is.
        applied: the rewrites that have applied so far; without the others every name would be the same.
    """

    rules: frozenset[str] = frozenset()
    made: dict[str, Product | Sum | ReducedSum] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)

    def record(self, value: TermView | None, *rules: str) -> TermView | None:
        """Return a value that these rewrites made, and record that they applied; None stays None."""
        if value is not None:
            self.applied.update(rules)
        return value

    def definition(self, value: TermView) -> Product | Sum | None:
        """The product or sum that a value is, its operands viewed through the value's own view."""
        known = self.made.get(value.term)
        if isinstance(known, Product):
            return Product(known.constant, tuple((seen_through(value, one), power) for one, power in known.factors))
        if isinstance(known, Sum):
            return Sum(known.constant, tuple((seen_through(value, one), scale) for one, scale in known.terms))
        return None

    def product(self, constant: float, given: Iterable[tuple[TermView, float]], shape: Any, dtype: str) -> TermView:
        """Make a product in normal form: flat, factors merged, one constant, leading coefficients of sums one."""
        merged: dict[str, tuple[TermView, float]] = {}
        for value, power in self._factors(given):
            # A negative constant has no root and zero no reciprocal: there it stays a factor, whatever the others are.
            if value.constant is not None and (value.constant > 0 or (power > 0 and float(power).is_integer())):
                constant *= float(value.constant) ** power
                continue
            scale, base = self._unit_sum(value, float(power).is_integer())
            constant *= scale**power
            # A scalar has no axes, but is the same factor as when it is repeated over the shape.
            key = digest(base.term, base.axes or (None,) * len(shape))
            known = merged.get(key, (base, 0.0))[1]
            # A mask is its own square, cube and so on.
            merged[key] = (base, 1.0 if base.dtype == "bool" else known + power)
        # x / x is gone; that x is not zero is the condition of the rewrite.
        factors = tuple((value, power) for value, power in merged.values() if power)
        if not factors or constant == 0:
            return constant_view(np.asarray(constant, dtype), shape)
        (value, power), single = factors[0], len(factors) == 1
        if single and power == 1 and value.dtype == dtype and value.shape == shape:
            inside = self.definition(value)
            if constant == 1:
                return value
            if isinstance(inside, Sum):
                return self.sum(constant * inside.constant, [(v, constant * c) for v, c in inside.terms], shape, dtype)
        result = apply_elementwise(
            ("product", round_coefficient(constant)),
            [v for v, _ in factors],
            shape,
            dtype,
            True,
            [p for _, p in factors],
        )
        own = tuple((on_term(value, result), power) for value, power in factors)
        self.made.setdefault(result.term, Product(constant, own))
        return result

    def sum(self, constant: float, given: Iterable[tuple[TermView, float]], shape: Any, dtype: str) -> TermView:
        """Make a sum in normal form: flat, equal terms merged."""
        merged: dict[str, tuple[TermView, float, float]] = {}
        for value, scale in self._terms(given):
            if value.constant is not None:
                constant += scale * float(value.constant)
                continue
            # The view counts: x and x.T are two terms of a sum.
            key = digest(value.term, value.axes or (None,) * len(shape))
            _, known, size = merged.get(key, (value, 0.0, 0.0))
            merged[key] = (value, known + scale, max(size, abs(scale)))
        # A term that cancels leaves a rounding error; one that is merely smaller than other terms stays.
        terms = tuple((value, scale) for value, scale, size in merged.values() if abs(scale) > 1e-14 * size)
        if not terms:
            return constant_view(np.asarray(constant, dtype), shape)
        if len(terms) == 1 and constant == 0 and (terms[0][1] != 1 or terms[0][0].shape == shape):
            return self.product(terms[0][1], [(terms[0][0], 1.0)], shape, dtype)
        result = apply_elementwise(
            ("sum", round_coefficient(constant)),
            [v for v, _ in terms],
            shape,
            dtype,
            True,
            [round_coefficient(s) for _, s in terms],
        )
        self.made.setdefault(result.term, Sum(constant, tuple((on_term(v, result), s) for v, s in terms)))
        return result

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

    def _terms(self, given: Iterable[tuple[TermView, float]]) -> Iterable[tuple[TermView, float]]:
        for value, scale in given:
            inside = self.definition(value)
            if isinstance(inside, Sum):
                yield constant_view(np.asarray(inside.constant), value.shape), scale
                yield from self._terms((one, scale * weight) for one, weight in inside.terms)
            elif isinstance(inside, Product) and inside.constant != 1:
                yield self.product(1.0, inside.factors, value.shape, value.dtype), scale * inside.constant
            else:
                yield value, scale

    def _unit_sum(self, value: TermView, whole: bool) -> tuple[float, TermView]:
        """A sum as a factor has a leading one: `2a + 2b` is 2 times `a + b`. Under a root its sign stays inside."""
        inside = self.definition(value)
        if not isinstance(inside, Sum):
            return 1.0, value
        # The same in every view of the sum, and after it is divided: by term, and of one term's views the largest.
        first = min(one.term for one, _ in inside.terms)
        _, scale = max((abs(weight), weight) for one, weight in inside.terms if one.term == first)
        scale = scale if whole else abs(scale)
        if scale == 1:
            return 1.0, value
        terms = [(one, weight / scale) for one, weight in inside.terms]
        return scale, self.sum(inside.constant / scale, terms, value.shape, value.dtype)


def round_coefficient(value: float) -> float:
    """Round a coefficient to twelve digits."""
    # Coarser than float64's rounding of a few constants, far finer than what float32 can tell apart.
    return float(f"{value:.12g}")


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
