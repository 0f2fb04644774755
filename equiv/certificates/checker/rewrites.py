"""Rewrites of real arithmetic, which rounding breaks: what a proof that names them needs besides the exact rules.

Coefficients are float64 and count as equal to twelve digits.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from math import isfinite, prod
from typing import Any

from equiv.certificates.checker.rules import RULES, axes_of, is_ordinary, met
from equiv.certificates.checker.terms import Axes, Terms, Value, View, need, through, to_text

Poly = dict[tuple[tuple[int, float], ...], float]
"""Monomials, which are atoms with powers, to coefficients."""

POWERS = {"mul": (1, 1), "div": (1, -1), "neg": (1,), "square": (2,), "sqrt": (0.5,), "rsqrt": (-0.5,)}
SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}
ARITY = {"mul": 2, "div": 2, "add": 2, "add_any": 2, "sub": 2, "select_n": 3}
PRODUCTS, SUMS, FLOAT64 = "products in another order", "sums in another order", "constants as in float64"
LINEAR, MASKS = "scale commutes with sums and contractions", "a mask multiplies or selects"
FLOAT64_CASTS = "casts as in float64"
TWO_PASS, POSITIVE = "variance in one or two passes", "a variance is not negative"
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


def add(weighted: Iterable[tuple[Poly, float]]) -> Poly:
    """A weighted sum. What cancels may leave the rounding of its own coefficients."""
    total, size = Poly(), Poly()
    for poly, weight in weighted:
        for one, number in poly.items():
            total[one] = total.get(one, 0.0) + weight * number
            size[one] = max(size.get(one, 0.0), abs(weight * number))
    return {one: number for one, number in total.items() if abs(number) > 1e-14 * size[one]}


def ratio(one: Poly, other: Poly) -> float:
    """The number that turns the second into the first, to twelve digits; 0: there is none."""
    if one.keys() != other.keys():
        return 0.0
    scale = next((one[key] / other[key] for key in one), 0.0)
    return scale if all(abs(one[key] - scale * other[key]) <= 1e-12 * abs(one[key]) for key in one) else 0.0


def same(one: Poly, other: Poly) -> bool:
    """Whether two sums are equal to twelve digits of every coefficient."""
    return one == other or abs(ratio(one, other) - 1) <= 1e-12


class Sums:
    """What the sums and products among terms consist of."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.atoms: dict[Any, int] = {}
        self.inside: dict[int, Poly] = {}
        self.polys: dict[View, Poly] = {}

    def parts(self, term: int, axes: Axes) -> list[tuple[int, Axes, float]]:
        """Parts of a sum or product as a view of it shows them, with their coefficients or powers."""
        it = self.terms.terms[term]
        return [(one, through(axes, own), weight) for (one, own), weight in zip(it.of, it.data[1], strict=True)]

    def poly(self, term: int, axes: Axes) -> Poly:
        """A view of a term as a sum of products."""
        if (term, axes) not in self.polys:
            it, number = self.terms.terms[term], self.terms.number(term)
            if it.kind in ("sum", "product"):
                parts = [(self.poly(one, view), weight) for one, view, weight in self.parts(term, axes)]
                found = add([({(): 1.0}, it.data[0]), *parts]) if it.kind == "sum" else self.multiply(it.data[0], parts)
            elif number is not None and it.dtype != "bool" and isfinite(number):
                found = {(): float(number)} if number else {}
            else:
                negated = it.dtype == "bool" and it.data == ["not", "{}"]
                inner = ("not", it.of[0][0], through(axes, it.of[0][1])) if negated else ("term", term, axes)
                found = {((self.atom((*inner, it.dtype == "bool")), 1.0),): 1.0}
            self.polys[term, axes] = found
        return self.polys[term, axes]

    def atom(self, key: Any) -> int:
        """The number of what is not looked into, negative for a truth value, whose powers are itself."""
        number = self.atoms.setdefault(key, len(self.atoms) + 1)
        return -number if key[-1] is True else number

    def multiply(self, scale: float, given: Iterable[tuple[Poly, float]]) -> Poly:
        """A number times powers of sums. Sums are not multiplied out, but as factors have a leading one."""
        powers: dict[int, float] = {}
        for poly, power in given:
            factor, atoms = self._power(poly, power)
            scale *= factor
            for atom, exponent in atoms:
                power = powers.get(atom, 0.0) + exponent
                powers[atom] = 1.0 if atom < 0 < power else power
        product = tuple(sorted((atom, power) for atom, power in powers.items() if power))
        if len(product) == 1 and product[0][1] == 1 and product[0][0] in self.inside:
            return {one: scale * number for one, number in self.inside[product[0][0]].items()}
        return {product: scale} if scale else {}

    def _power(self, poly: Poly, power: float) -> tuple[float, list[tuple[int, float]]]:
        """A power of a sum: a number, and atoms with powers. Only what is positive comes out of a root."""
        (one, number), whole = next(iter(poly.items()), ((), 0.0)), float(power).is_integer()
        if len(poly) < 2 and (power > 0 or number) and (whole or (number >= 0 and not one)):
            return number**power, [(atom, inner * power) for atom, inner in one]
        lead = poly[min(poly)] if poly else 1.0
        lead = lead if whole else abs(lead)
        unit = {key: value / lead for key, value in poly.items()}
        if len(one) == 1 and one[0][1] == 1 and unit == {one: 1.0}:
            return lead**power, [(one[0][0], power)]
        atom = self.atom(tuple(sorted((key, float(f"{value:.12g}")) for key, value in unit.items())))
        self.inside.setdefault(atom, unit)
        return lead**power, [(atom, power)]

    def summands(self, term: int, axes: Axes, over: Sequence[int], shape: Axes) -> Iterator[Poly]:
        """Sums of products whose total over axes of an array of this shape is this value of the other axes."""
        kept = [axis for axis in range(len(shape)) if axis not in over]
        labels = [kept.index(axis) if axis in kept else -1 - axis for axis in range(len(shape))]
        product = self.terms.terms[term].kind == "product"
        parts = self.parts(term, axes) if product else [(term, axes, 1.0)]
        for place, (one, view, power) in enumerate(parts):
            if self.terms.terms[one].kind == "meeting" and self.terms.terms[one].data[0] == "reduce_sum" and power >= 1:
                wide = [(t, tuple(v[n] if n >= 0 else -1 for n in labels), p) for t, v, p in parts]
                rest = [(self.poly(t, v), p - (n == place)) for n, (t, v, p) in enumerate(wide)]
                for (inner,) in self.terms.operands(one, view, [labels], [shape]):
                    scale = self.terms.terms[term].data[0] if product else 1.0
                    yield self.multiply(scale, [(self.poly(*inner), 1.0), *rest])


def arithmetic(sums: Sums, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A product or power with its factors in any order, a sum with its terms in any order, a mask as a factor."""
    bits = op in ("select_n", "convert_element_type")
    fits = _are_floats(*ins[bits:], out) and is_ordinary(params) and len(ins) == ARITY.get(op, 1)
    if not fits or (bits and ins[0].dtype != "bool"):
        return False
    polys = [sums.poly(*one.spread(out.shape)[:2]) for one in ins]
    if op in SIGNS:
        expected = add(zip(polys, SIGNS[op], strict=True))
    elif op == "select_n":
        mask, (_, false, true) = ins[0].spread(out.shape), polys
        off = {((sums.atom(("not", *mask[:2], True)), 1.0),): 1.0}
        if false and true:
            return False
        expected = sums.multiply(1.0, [(polys[0], 1.0), (true, 1.0)] if not false else [(off, 1.0), (false, 1.0)])
    else:
        powers = (1,) if bits else (params["y"],) if op == "integer_pow" else POWERS[op]
        expected = sums.multiply(-1.0 if op == "neg" else 1.0, zip(polys, powers, strict=True))
    return same(sums.poly(*out[:2]), expected)


def _are_floats(*values: Value) -> bool:
    return len({one.dtype for one in values}) == 1 and values[0].dtype.startswith(("float", "bfloat"))


def linear(sums: Sums, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A sum or contraction of which constants, or factors that are the same along its axes, have come out."""
    if not _are_floats(*ins, out):
        return False
    if op == "reduce_sum":
        summands = sums.summands(*out[:2], axes_of(params), ins[0].shape)
        return any(same(sums.poly(*ins[0][:2]), one) for one in summands)
    for term, axes, _ in sums.parts(*out[:2]) if sums.terms.terms[out.term].kind == "product" else ():
        for pair in met(sums.terms, op, params, ins, out._replace(term=term, axes=axes)):
            scale = prod(ratio(sums.poly(*v[:2]), sums.poly(*bare)) for v, bare in zip(ins, pair, strict=True))
            if same(sums.poly(*out[:2]), add([(sums.poly(term, axes), scale)])):
                return True
    return False


def two_passes(sums: Sums, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """`sum(k * (w * x + u * m)**2)` is `k * (w**2 * sum(x**2) + (2 * w * u + n * u**2) * m**2)` for `m = sum(x)`."""
    it, shape, over = sums.terms.terms[ins[0].term], ins[0].shape, axes_of(params)
    ((base, axes, _),) = sums.parts(*ins[0][:2]) if it.kind == "product" and it.data[1] == [2] else [(0, (), 0)]
    centred, count = sums.terms.terms[base], prod(shape[axis] for axis in over)
    if not axes or centred.kind != "sum" or centred.data[0] or sums.terms.terms[out.term].kind != "sum":
        return False
    for (x, of_x, w), (m, of_m, u) in permutations(sums.parts(base, axes), 2) if len(centred.of) == 2 else ():
        kept = tuple(of_m[axis] for axis in range(len(shape)) if axis not in over)
        wanted, square = sums.poly(x, of_x), sums.multiply(1.0, [(sums.poly(x, of_x), 2.0)])
        fixed = all(of_m[axis] < 0 for axis in over)
        if fixed and any(same(wanted, one) for one in sums.summands(m, kept, over, shape)):
            for q, of_q, _ in sums.parts(*out[:2]):
                if any(same(square, one) for one in sums.summands(q, of_q, over, shape)):
                    mean = sums.multiply(2 * w * u + count * u * u, [(sums.poly(m, kept), 2.0)])
                    both = add([(sums.poly(q, of_q), it.data[0] * w * w), (mean, it.data[0])])
                    return same(sums.poly(*out[:2]), both)
    return False


def positive(sums: Sums, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A variance compared with zero or with itself: a positive multiple of `n * sum(x**2) - sum(x)**2`."""
    zero, known = [bool(sums.terms.number(one.term) == 0) for one in ins], sums.terms.number(out.term)
    value = ins[zero[0]].spread(out.shape)
    expected = op == "eq" if not any(zero) else op == "lt" if zero[0] else op in ("gt", "ge")
    said = out == value if op == "max" else known is not None and bool(known) == expected
    it, parts = sums.terms.terms[value.term], []
    if said and (any(zero) or (op == "eq" and ins[0] == ins[1])) and it.kind == "sum" and not it.data[0]:
        parts = sorted(sums.parts(*value[:2]), key=lambda part: -part[2])
    kinds = [sums.terms.terms[term].kind for term, _, _ in parts]
    if kinds != ["meeting", "product"] or sums.terms.terms[parts[1][0]].data[1] != [2] or parts[0][2] <= 0:
        return False
    (q, of_q, a), (s, of_s, b) = parts
    ((root, of_root, _),), ((inner, letters),) = sums.parts(s, of_s), sums.terms.terms[q].of[:1]
    rank, own = len(sums.terms.terms[q].shape), sums.terms.terms[inner].shape
    sizes = tuple(size for size, letter in zip(own, letters, strict=True) if letter >= rank)
    shape, over = (*value.shape, *sizes), range(len(value.shape), len(value.shape) + len(sizes))
    roots = [sums.multiply(1.0, [(one, 2.0)]) for one in sums.summands(root, of_root, over, shape)]
    fits = any(same(one, other) for one in sums.summands(q, of_q, over, shape) for other in roots)
    return fits and abs(-b * sums.terms.terms[s].data[0] * prod(sizes) / a - 1) <= 1e-11


ALL_RULES = RULES | {
    "products": (arithmetic, (*POWERS, "integer_pow"), (PRODUCTS,)),
    "sums": (arithmetic, SIGNS, (SUMS,)),
    "masks": (arithmetic, ("convert_element_type", "select_n"), (MASKS, PRODUCTS)),
    "linear": (linear, ("dot_general", "reduce_sum"), (LINEAR, PRODUCTS)),
    "two passes": (two_passes, ("reduce_sum",), (TWO_PASS,)),
    "positive": (positive, ("eq", "ge", "gt", "lt", "max"), (POSITIVE,)),
}
"""The exact rules, and those that need a rewrite and are given `Sums` instead of `Terms`."""

FLOATS = re.compile(r'"(b?float\d\w*)"')
"""Names of float dtypes in a program."""


def check_precision(proof: Any, programs: Any) -> None:
    """Check that a proof names the rewrites that its precision is: a float64 reading, with or without its casts."""
    precision, named = proof["precision"], set(proof["rewrites"])
    right = (FLOAT64 in named) == (precision != "native") and (precision == "float64" or FLOAT64_CASTS not in named)
    need(right and named <= CONDITIONS.keys(), f"{sorted(named)} are not known, or not those of this precision")
    if precision == "float64" and FLOAT64_CASTS not in named:
        keys = [to_text([side, name, "native"]) for side, name in enumerate(proof["programs"])]
        own = to_text([programs[key]["jaxpr"] for key in keys])
        need(len(set(FLOATS.findall(own))) < 2 and "reduce_precision" not in own, "there are casts that are not named")


def check_claims(conditions: Any, proved: Any) -> None:
    """Check what is said of rewrites; and that what has the same casts is proved without them too.

    Args:
        conditions: rewrite to its condition.
        proved: precision and what is proved in it, of every proof.
    """
    need(all(CONDITIONS[name] == text for name, text in conditions.items()), "a rewrite has another condition")
    wide = [found for precision, found in proved if precision == "float64"]
    for pair, (_, named) in [one for precision, found in proved if precision == "kept" for one in found.items()]:
        also = any(pair in one and one[pair][1] <= {*named, FLOAT64_CASTS} for one in wide)
        need(also, "what has the same casts is not said to be the same function")
