"""Rewrites of real arithmetic, which rounding breaks: both sides have to agree to eleven digits at random numbers.

Random is everything that sums and products are made from, as are the weights of what is summed, which are as many as
there are elements only in total. So equal are two sides that are equal whatever they are made from.
"""

import json
from functools import partial
from math import isfinite, prod
from typing import Any

import numpy as np

from equiv.certificates.checker.rules import RULES as EXACT
from equiv.certificates.checker.rules import Step, copies, met, relabel
from equiv.certificates.checker.terms import Terms, View, need, read_view, through

PRODUCTS, SUMS, FLOAT64 = "products in another order", "sums in another order", "constants as in float64"
LINEAR, MASKS = "scale commutes with sums and contractions", "a mask multiplies or selects"
TWO_PASS, POSITIVE = "variance in one or two passes", "a variance is not negative"
FLOAT64_CASTS = "casts as in float64"
CONDITIONS = {
    PRODUCTS: "a*b*c in any order, x/sqrt(v) = x*rsqrt(v), x/c = x*(1/c): values finite, no division by zero",
    SUMS: "a+b+c in any order, a-b = a+(-b): values finite",
    LINEAR: "sum(c*x) = c*sum(x), sum(c) = n*c, dot(c*x, w) = c*dot(x, w): c the same along the summed axes",
    MASKS: "where(m, x, 0) = m*x: x finite",
    TWO_PASS: "sum((x - mean(x))**2) = sum(x**2) - sum(x)**2/n, and their derivatives: values finite",
    POSITIVE: "max(0, v) = v, v > 0 for v = mean(x**2) - mean(x)**2: x is not constant along the summed axes",
    FLOAT64: "float64 traces are compared: 1 - 0.99 and 0.01 are equal in real numbers, not in float32",
    FLOAT64_CASTS: "casts between float dtypes are left out: no value on the way leaves the range of its dtype",
}
"""Rewrite of real arithmetic to the condition under which it holds."""

POWERS = {"mul": (1, 1), "div": (1, -1), "neg": (1,), "square": (2,), "sqrt": (0.5,), "rsqrt": (-0.5,)}
SIGNS = {"add": (1, 1), "sub": (1, -1)}
POINTS, SAMPLES, RANDOM = 96, 3, np.random.default_rng()
DECADES = np.linspace(0, 30, POINTS)
"""How far numbers are from each other at each point: so far that each summand is the largest of a sum somewhere."""
Number = tuple[Any, Any]
"""What a term is at random points, and what it would be if nothing cancelled, to which its rounding is relative."""


def plus(constant: float, parts: Any) -> Number:
    """A weighted sum, of which each part can be seen somewhere."""
    parts = list(parts)
    sizes = [np.asarray(abs(weight) * size) for (_, size), weight in parts]
    size = abs(constant) + sum(sizes)
    seen = all(not one.any() or np.nan_to_num(one / size).max() > 1e-6 for one in sizes)
    need(seen, "a summand is too small to be seen")
    return constant + sum(weight * value for (value, _), weight in parts), size


def times(constant: float, parts: Any) -> Number:
    """A product of powers; roots are those of complex numbers."""
    parts = list(parts)
    value = constant * prod((v if float(p).is_integer() else v + 0j) ** float(p) for (v, _), p in parts)
    return value, abs(value) * prod(s / np.maximum(abs(v), 1e-200) for (v, s), _ in parts)


def agree(one: Number, other: Number) -> bool:
    """Whether two sides are equal to eleven digits wherever they are finite."""
    gap = np.asarray(abs(one[0] - other[0]) - 1e-11 * (one[1] + other[1]))
    known = np.isfinite(gap)
    return bool(known.mean() > 0.5 and (gap[known] <= 0).all())


class Reals:
    """Random numbers in place of what sums and products are made from.

    Args:
        terms: the terms.
        sizes: axes along which something is summed, with their sizes.
        sums: terms in a view to what they sum, the view of it, and the axes; in place of random numbers.
        expand: whether products of sums are multiplied out.
    """

    def __init__(self, terms: Terms, sizes: dict[int, int] | None = None, sums: Any = None, expand: bool = True):
        self.terms, self.sizes, self.sums, self.expand = terms, sizes or {}, sums or {}, expand
        self.known, self.factors = dict[Any, Number](), list[tuple[Number, Number]]()
        self.weights = {axis: RANDOM.dirichlet([3.0] * SAMPLES) * size for axis, size in self.sizes.items()}

    def random(self, axes: Any, truth: bool = False) -> Number:
        """Random numbers of either sign for each point, and for each sample of some axes."""
        shape = (POINTS, *(SAMPLES if axis in axes else 1 for axis in self.sizes))
        spread = RANDOM.uniform(-1, 1, shape) * DECADES.reshape(-1, *[1] * len(self.sizes))
        number = RANDOM.uniform(-1, 1, shape) * np.longdouble(10) ** spread
        return ((number > 0) * 1.0, np.ones(shape)) if truth else (number, abs(number))

    def total(self, number: Number, axes: Any) -> Number:
        """The sum over axes: by weights, which are as many as there are elements only in total."""
        value, size = number
        for place, axis in enumerate(self.sizes, 1):
            if axis in axes:
                shape = [-1 if n == place else 1 for n in range(len(self.sizes) + 1)]
                weights = np.ones((POINTS, *[1] * len(self.sizes))) * self.weights[axis].reshape(shape)
                value, size = (value * weights).sum(place, keepdims=True), (size * weights).sum(place, keepdims=True)
        return value, size

    def at(self, term: int, view: View) -> Number:
        """What a term is through a view."""
        if (term, view) not in self.known:
            self.known[term, view] = self._find(term, view)
        return self.known[term, view]

    def _find(self, term: int, view: View) -> Number:
        it, number, env = self.terms.terms[term], self.terms.number(term), dict(enumerate(view))
        if (term, view) in self.sums:
            of, env, axes = self.sums[term, view]
            return self.total(times(1.0, [(self.factor(one, through(own, env)), 1) for one, own in of]), axes)
        if it.kind in ("sum", "product"):
            look, join = (self.at, plus) if it.kind == "sum" else (self.factor, times)
            parts = [look(one, through(own, env)) for one, own in it.of]
            return join(it.data[0], zip(parts, it.data[1], strict=True))
        if number is not None and isfinite(number):
            return np.float64(number), np.float64(abs(number))
        if it.kind == "elementwise" and it.data == ["not", "{}"] and it.dtype == "bool":
            return plus(1.0, [(self.at(it.of[0][0], through(it.of[0][1], env)), -1)])
        return self.random({axis for one in view for axis, _, _ in one}, it.dtype == "bool")

    def factor(self, term: int, view: View) -> Number:
        """What a term is as a factor: of a sum that is not multiplied out it matters only which multiple it is."""
        value = self.at(term, view)
        if self.expand or self.terms.terms[term].kind != "sum":
            return value
        for known, found in self.factors:
            ratio = np.broadcast_to(value[0] / known[0], np.shape(value[0])).flat[
                np.nanargmax(abs(value[0]) / value[1])
            ]
            if np.shape(known[0]) == np.shape(value[0]) and agree(value, times(ratio, [(known, 1)])):
                return times(ratio, [(found, 1)])
        axes = [axis for place, axis in enumerate(self.sizes, 1) if np.shape(value[0])[place] > 1]
        self.factors.append((value, self.random(axes)))
        return self.factors[-1][1]


def arithmetic(terms: Terms, it: Step, expand: bool = False) -> bool:
    """A product or power with its factors in any order, a sum with its terms in any order, a mask as a factor."""
    reals = terms.kept.setdefault(expand, Reals(terms, expand=expand))
    bits, powers = it.op in ("select_n", "convert_element_type"), json.loads(it.data)
    exponents = (powers.pop("y"),) if it.op == "integer_pow" else POWERS.get(it.op, (1,))
    if powers or not are_floats(it, bits) or (bits and it.ins[0].dtype != "bool"):
        return False
    look = reals.at if it.op in SIGNS else reals.factor
    values = [look(*one[:2]) for one in it.ins]
    if it.op == "select_n":
        mask, *cases = values
        need(any(terms.number(one.term) == 0 for one in it.ins[1:]), "a mask chooses between two numbers")
        masks = (plus(1.0, [(mask, -1)]), mask)
        found = plus(0.0, [(times(1.0, [(one, 1), (case, 1)]), 1) for one, case in zip(masks, cases, strict=True)])
    elif it.op in SIGNS:
        found = plus(0.0, zip(values, SIGNS[it.op], strict=True))
    else:
        found = times(-1.0 if it.op == "neg" else 1.0, zip(values, exponents, strict=True))
    return agree(look(*it.out[:2]), found)


def are_floats(it: Step, first: int = 0) -> bool:
    """Whether operands, from one on, and the result are of one float dtype."""
    return it.out.dtype.startswith(("float", "bfloat")) and {one.dtype for one in it.ins[first:]} <= {it.out.dtype}


def summed(terms: Terms, it: Step, expand: bool = False) -> bool:
    """A sum or contraction by what other sums and contractions are of; it may have axes more than the equation's."""
    (ins, sizes), (further, claims) = relabel(it), it.hint
    every = sizes | dict(enumerate(further, max(sizes, default=-1) + 1))
    sums = dict(read_sum(terms, it, claim, every) for claim in claims)
    reals = Reals(terms, every, sums, expand)
    inside = times(1.0, [(reals.factor(*one[:2]), 1) for one in ins])
    return are_floats(it) and agree(reals.at(*it.out[:2]), reals.total(inside, sizes))


def read_sum(terms: Terms, it: Step, claim: Any, sizes: dict[int, int]) -> tuple[Any, Any]:
    """A term in a view, what it sums, the view of that, and the axes: all of some axes, each once."""
    term, (view, bound) = claim[0], map(read_view, claim[1:])
    axes = {axis for one in bound for axis, _, _ in one}
    own = {axis for one in view for axis, _, _ in one}
    need(
        terms.is_view(term, view, min(own, default=0)) and not axes & own, "what is summed is not what it is summed by"
    )
    found = met(terms, it, term, (*view, *bound))
    need(found, "it sums in another way")
    (of, env), *_ = found
    need(copies(bound, terms.terms[term].data[2], {axis: sizes[axis] for axis in axes}) == 1, "it sums something else")
    return (term, view), (of, env, axes)


def positive(terms: Terms, it: Step) -> bool:
    """A variance compared with zero or itself: a positive multiple of `n * sum(x**2) - sum(x)**2`."""
    zero, known = [bool(terms.number(one.term) == 0) for one in it.ins], terms.number(it.out.term)
    value, (scale, sizes, *claims) = it.ins[zero[0]], it.hint
    every, as_sum = dict(enumerate(sizes, len(value.shape))), it._replace(op="reduce_sum", data=["{}", "{}", []])
    sums = [read_sum(terms, as_sum, claim, every) for claim in claims]
    inner, outer = Reals(terms, every), Reals(terms)
    squares, roots = (inner.at(of[0][0], through(of[0][1], env)) for _, (of, env, _) in sums)
    (square, root), count = (outer.at(*one) for one, _ in sums), prod(sizes)
    variance = plus(0.0, [(square, scale * count), (times(1.0, [(root, 2)]), -scale)])
    fits = (
        scale > 0 and all(axes == every.keys() for _, (_, _, axes) in sums) and agree(squares, times(1.0, [(roots, 2)]))
    )
    fits = fits and agree(outer.at(*value[:2]), variance) and (any(zero) or (it.op == "eq" and it.ins[0] == it.ins[1]))
    expected = it.op == "eq" if not any(zero) else it.op == "lt" if zero[0] else it.op in ("gt", "ge")
    return fits and (it.out[:2] == value[:2] if it.op == "max" else known is not None and bool(known) == expected)


RULES = EXACT | {
    "products": (arithmetic, (*POWERS, "integer_pow"), (PRODUCTS,)),
    "sums": (arithmetic, tuple(SIGNS), (SUMS,)),
    "masks": (arithmetic, ("convert_element_type", "select_n"), (MASKS, PRODUCTS)),
    "linear": (summed, ("dot_general", "reduce_sum"), (LINEAR, PRODUCTS)),
    "centred": (partial(arithmetic, expand=True), (*POWERS, *SIGNS, "integer_pow"), (TWO_PASS,)),
    "two passes": (partial(summed, expand=True), ("reduce_sum",), (TWO_PASS,)),
    "positive": (positive, ("eq", "ge", "gt", "lt", "max"), (POSITIVE,)),
}
"""The exact rules, and those of real arithmetic."""
