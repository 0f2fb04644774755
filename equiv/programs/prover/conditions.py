"""Named rewrites of real arithmetic: equalities of exact numbers that rounding breaks.

Each holds under its condition in `CONDITIONS`. A proof that needs one names it (`proved modulo`); none is silent.
"""

from equiv.core.grades import CONSTANT_MASK, IN_RANGE, MASKED

REORDERED_PRODUCTS = "products in another order"

REORDERED_SUMS = "sums in another order"

LINEAR = "scale commutes with sums and contractions"

MASKS = "a mask multiplies or selects"

TWO_PASS = "variance in one or two passes"

PARTS = "sums of parts"

POSITIVE = "a variance is not negative"

ONE_HOT = "a lookup is a sum with a one-hot mask"

FINITE = "a log of summed exponentials is finite"

CONDITIONS = {
    REORDERED_PRODUCTS: "a*b*c in any order, x/sqrt(v) = x*rsqrt(v), x/c = x*(1/c): values finite, no division by zero",
    REORDERED_SUMS: "a+b+c in any order, a-b = a+(-b): values finite",
    LINEAR: "sum(c*x) = c*sum(x), sum(c) = n*c, dot(c*x, w) = c*dot(x, w): c the same along the summed axes",
    MASKS: "where(m, x, 0) = m*x: x finite",
    TWO_PASS: "sum((x - mean(x))**2) = sum(x**2) - sum(x)**2/n, and their derivatives: values finite",
    PARTS: "sum(concatenate(x, y)) = sum(x) + sum(y), and so of contractions: values finite",
    MASKED: "exp(where(m, x, c) - max) = m*exp(x - max), max of x where m: c <= -1e4, every row keeps an x far above c",
    CONSTANT_MASK: "exp(where(m, x, c) - max) = m*exp(x - max), m constant, an x in every row: c <= -1e30, |x| < 1e29",
    IN_RANGE: "x[i] in any mode, or from the end for i < 0, is x[i]: 0 <= i < size, sorted, unique where it says so",
    ONE_HOT: "x[i] = sum(where(arange(n) == i, x, 0)) = one_hot(i, n) @ x, and their derivatives: values finite",
    FINITE: "v >= 0, sign(v) = 1 for v = sum(exp(x)), where(is_finite(m), m, 0) = m for m = max(x): finite, v not 0",
    POSITIVE: "max(0, v) = v, v > 0 for v = mean(x**2) - mean(x)**2: x is not constant along the summed axes",
}
"""Rewrite to the condition under which it holds."""

WRITTEN_AS = {
    LINEAR: frozenset((REORDERED_PRODUCTS, REORDERED_SUMS)),
    MASKS: frozenset((REORDERED_PRODUCTS,)),
    PARTS: frozenset((REORDERED_SUMS,)),
}
"""Rewrite to those of which it needs one: it is written as a product or a sum in normal form."""


def drop_idle(rules: frozenset[str]) -> frozenset[str]:
    """Leave out the rewrites that nothing can be written with, as what they need is left out, too."""
    return frozenset(rule for rule in rules if rule not in WRITTEN_AS or not rules.isdisjoint(WRITTEN_AS[rule]))
