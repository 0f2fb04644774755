"""Rules: whether an equation's result is the claimed view of the claimed term. Each looks at one equation alone."""

from collections.abc import Callable, Collection, Iterator
from itertools import count, permutations
from math import prod
from typing import Any

import numpy as np

from equiv.certificates.checker.terms import Terms, Value, add, need, ratio, same, through, to_text


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _words("""
    abs acos acosh add and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz complex conj cos cosh
    convert_element_type digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma
    log log1p logistic lt max min mul ne neg nextafter not or population_count pow real reduce_precision rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor
""")
REDUCTIONS = _words("reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor")
COMMUTATIVE = _words("add and eq max min mul ne or xor")
IDENTITIES = ("convert_element_type", "copy", "name", "optimization_barrier", "sharding_constraint", "stop_gradient")
FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative}
FOLDED |= {"sqrt": np.sqrt, "max": np.maximum, "min": np.minimum}
POWERS = {"mul": (1, 1), "div": (1, -1), "neg": (1,), "square": (2,), "sqrt": (0.5,), "rsqrt": (-0.5,)}
SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}
PRODUCTS, SUMS, FLOAT64 = "products in another order", "sums in another order", "constants as in float64"
LINEAR, MASKS = "scale commutes with sums and contractions", "a mask multiplies or selects"
FLOAT64_CASTS = "casts as in float64"
TWO_PASS, POSITIVE = "variance in one or two passes", "a variance is not negative"
CONDITIONS = {
    PRODUCTS: "a*b*c in any order, x/sqrt(v) = x*rsqrt(v), x/c = x*(1/c): values finite, no division by zero",
    SUMS: "a+b+c in any order, a-b = a+(-b): values finite",
    LINEAR: "sum(c*x) = c*sum(x), dot(c*x, w) = c*dot(x, w): c the same along the summed axes",
    MASKS: "where(m, x, 0) = m*x: x finite",
    TWO_PASS: "sum((x - mean(x))**2) = sum(x**2) - sum(x)**2/n: values finite",
    POSITIVE: "max(0, v) = v, v > 0 for v = mean(x**2) - mean(x)**2: x is not constant along the summed axes",
    FLOAT64: "float64 traces are compared: 1 - 0.99 and 0.01 are equal in real numbers, not in float32",
    FLOAT64_CASTS: "casts between float dtypes are left out: no value on the way leaves the range of its dtype",
}
"""Rewrite of real arithmetic to the condition under which it holds."""


def plain(content: Any) -> Any:
    """A parameter without the tags of its tuples: `["tuple", 0, 1]` is `[0, 1]`."""
    need(not isinstance(content, list) or content[0] == "tuple", f"{content} is no tuple")
    return [plain(one) for one in content[1:]] if isinstance(content, list) else content


def rest_of(params: dict[str, Any], *without: str) -> str:
    """The other parameters, as text."""
    return to_text({key: value for key, value in params.items() if key not in without})


def identity(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The result is an operand: the only one, the one chosen by a known number, or one times or divided by one."""
    if op in IDENTITIES:
        return out == ins[number]
    known = terms.number(ins[op != "select_n"].term)
    if op == "select_n":
        return known is not None and 0 <= known < len(ins) - 1 and out == ins[1 + int(known)].spread(out.shape)
    return known == 1 and out == ins[0]


def view(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The same elements in another shape or order of axes, or repeated; a reduction over axes of size one."""
    value, rank = ins[0], len(ins[0].shape)
    if op == "transpose":
        order = plain(params["permutation"])
        return sorted(order) == list(range(rank)) and out == value.take(order)
    if op == "broadcast_in_dim":
        places, long = plain(params["broadcast_dimensions"]), plain(params["shape"]) == list(out.shape)
        axes, fits = [-1] * len(out.shape), len(places) == rank and places == sorted(set(places))
        for axis, place in enumerate(places if fits else []):
            fits = fits and 0 <= place < len(axes) and value.shape[axis] in (1, out.shape[place])
            axes[place] = value.axes[axis] if value.shape[axis] == out.shape[place] else -1
        return fits and long and out == value._replace(axes=tuple(axes), shape=out.shape)
    if op == "reshape":
        fits = prod(value.shape) == prod(out.shape) and params["dimensions"] is None
        fits = fits and plain(params["new_sizes"]) == list(out.shape)
        return fits and value.dtype == out.dtype and _flat(terms, value) == _flat(terms, out)
    over = plain(params["dimensions" if op == "squeeze" else "axes"])
    kept = [axis for axis in range(rank) if axis not in over]
    return all(value.shape[axis] == 1 for axis in over) and out == value.take(kept)


def _flat(terms: Terms, value: Value) -> Any:
    """What an array is once its elements stand in one row: of a reshaped one, what was reshaped."""
    it, sizes = terms.terms[value.term], [(axis, n) for axis, n in zip(value.axes, value.shape, strict=True) if n != 1]
    if it.kind == "reshape" and [axis for axis, _ in sizes] == list(range(len(it.shape))):
        return _flat(terms, Value(*it.of[0], tuple(it.data), it.dtype))
    return value.term, it.kind == "number" or sizes


def folding(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """An operation on known numbers, in their dtype."""
    numbers, it = [terms.number(one.term) for one in ins], terms.terms[out.term]
    if any(one is None for one in numbers) or len({out.dtype, *(one.dtype for one in ins)}) > 1:
        return False
    with np.errstate(all="ignore"):
        folded = np.asarray(FOLDED[op](*numbers))
    return it.kind == "number" and it.data == folded.tobytes().hex() and folded.dtype.name == out.dtype


def congruence(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The same operation on the same operands; they may be exchanged where it commutes to the last bit."""
    it = terms.terms[out.term]
    if it.kind == "elementwise":
        if op in ("mul", "integer_pow") and (ins[0] == ins[-1] if op == "mul" else params["y"] == 2):
            op, params, ins = "square", {}, ins[:1]
        if op == "convert_element_type" and params["new_dtype"][1] == out.dtype:
            params = {}
        op, spread = "add" if op == "add_any" else op, [one.spread(out.shape) for one in ins]
        given = [out._replace(term=t, axes=through(out.axes, own), dtype=terms.terms[t].dtype) for t, own in it.of]
        fits = given == spread or (op in COMMUTATIVE and given == spread[::-1])
        return fits and op in ELEMENTWISE and it.data == [op, to_text(params)]
    if it.kind == "meeting":
        return it.data[0] == op and any([one[:2] for one in ins] == found for found in met(terms, op, params, ins, out))
    said, own = [op, to_text(params), [list(one.shape) for one in ins], number, list(out.shape)], [v[:2] for v in ins]
    return it.kind == "operation" and it.data == said and list(it.of) == own and out == out.as_new()


def met(terms: Terms, op: str, params: Any, ins: list[Value], out: Value) -> Iterator[list[Any]]:
    """Operands of which a value is the reduction or contraction that an equation makes; two may be exchanged."""
    sums, batches = ([plain(params["axes"])], [[]]) if op in REDUCTIONS else plain(params["dimension_numbers"])
    place, labels = count(len(batches[0])), []
    for own, summed, batch in zip(ins, sums, batches, strict=True):
        known = {axis: -1 - n for n, axis in enumerate(summed)} | {axis: n for n, axis in enumerate(batch)}
        labels.append([known[axis] if axis in known else next(place) for axis in range(len(own.shape))])
    sizes = {pair for own, one in zip(labels, ins, strict=True) for pair in zip(own, one.shape, strict=True)}
    asked, precision = params.get("preferred_element_type"), params.get("precision")
    turned = [precision[0], *precision[:0:-1]] if isinstance(precision, list) else precision
    rest = rest_of(params, "axes", "dimension_numbers", "precision", "preferred_element_type")
    fits = len(dict(sizes)) == len(sizes) and tuple(size for label, size in sorted(sizes) if label >= 0) == out.shape
    for turn, one in ((1, precision), (-1, turned)) if fits and (asked is None or asked[1] == out.dtype) else ():
        if terms.terms[out.term].data == [op, one, rest]:
            yield from terms.operands(out.term, out.axes, labels, [one.shape for one in ins], turn)


def arithmetic(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A product or power with its factors in any order, a sum with its terms in any order, a mask as a factor."""
    bits = op in ("select_n", "convert_element_type")
    if not _are_floats(*ins[bits:], out) or (bits and ins[0].dtype != "bool"):
        return False
    polys = [terms.poly(*one.spread(out.shape)[:2]) for one in ins]
    if op in SIGNS:
        expected = add(zip(polys, SIGNS[op], strict=True))
    elif op == "select_n":
        mask, (_, false, true) = ins[0].spread(out.shape), polys
        off = {((terms.atom(("not", *mask[:2], True)), 1.0),): 1.0}
        if false and true:
            return False
        expected = terms.multiply(1.0, [(polys[0], 1.0), (true, 1.0)] if not false else [(off, 1.0), (false, 1.0)])
    else:
        powers = (1,) if bits else (params["y"],) if op == "integer_pow" else POWERS[op]
        expected = terms.multiply(-1.0 if op == "neg" else 1.0, zip(polys, powers, strict=True))
    return same(terms.poly(*out[:2]), expected)


def _are_floats(*values: Value) -> bool:
    return len({one.dtype for one in values}) == 1 and values[0].dtype.startswith(("float", "bfloat"))


def linear(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A sum or contraction of which constants, or factors that are the same along its axes, have come out."""
    if not _are_floats(*ins, out):
        return False
    if op == "reduce_sum":
        summands = terms.summands(*out[:2], plain(params["axes"]), ins[0].shape)
        return any(same(terms.poly(*ins[0][:2]), one) for one in summands)
    for term, axes, _ in terms.parts(*out[:2]) if terms.terms[out.term].kind == "product" else ():
        for pair in met(terms, op, params, ins, out._replace(term=term, axes=axes)):
            scale = prod(ratio(terms.poly(*v[:2]), terms.poly(*bare)) for v, bare in zip(ins, pair, strict=True))
            if same(terms.poly(*out[:2]), add([(terms.poly(term, axes), scale)])):
                return True
    return False


def two_passes(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """`sum(k * (w * x + u * m)**2)` is `k * (w**2 * sum(x**2) + (2 * w * u + n * u**2) * m**2)` for `m = sum(x)`."""
    it, shape, over = terms.terms[ins[0].term], ins[0].shape, plain(params["axes"])
    ((base, axes, _),) = terms.parts(*ins[0][:2]) if it.kind == "product" and it.data[1] == [2] else [(0, (), 0)]
    centred, count = terms.terms[base], prod(shape[axis] for axis in over)
    if not axes or centred.kind != "sum" or centred.data[0] or terms.terms[out.term].kind != "sum":
        return False
    for (x, of_x, w), (m, of_m, u) in permutations(terms.parts(base, axes), 2) if len(centred.of) == 2 else ():
        kept = tuple(of_m[axis] for axis in range(len(shape)) if axis not in over)
        wanted, square = terms.poly(x, of_x), terms.multiply(1.0, [(terms.poly(x, of_x), 2.0)])
        fixed = all(of_m[axis] < 0 for axis in over)
        if fixed and any(same(wanted, one) for one in terms.summands(m, kept, over, shape)):
            for q, of_q, _ in terms.parts(*out[:2]):
                if any(same(square, one) for one in terms.summands(q, of_q, over, shape)):
                    mean = terms.multiply(2 * w * u + count * u * u, [(terms.poly(m, kept), 2.0)])
                    both = add([(terms.poly(q, of_q), it.data[0] * w * w), (mean, it.data[0])])
                    return same(terms.poly(*out[:2]), both)
    return False


def positive(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """A variance compared with zero or with itself: a positive multiple of `n * sum(x**2) - sum(x)**2`."""
    zero, known = [bool(terms.number(one.term) == 0) for one in ins], terms.number(out.term)
    value = ins[zero[0]].spread(out.shape)
    expected = op == "eq" if not any(zero) else op == "lt" if zero[0] else op in ("gt", "ge")
    said = out == value if op == "max" else known is not None and bool(known) == expected
    it, parts = terms.terms[value.term], []
    if said and (any(zero) or (op == "eq" and ins[0] == ins[1])) and it.kind == "sum" and not it.data[0]:
        parts = sorted(terms.parts(*value[:2]), key=lambda part: -part[2])
    kinds = [terms.terms[term].kind for term, _, _ in parts]
    if kinds != ["meeting", "product"] or terms.terms[parts[1][0]].data[1] != [2] or parts[0][2] <= 0:
        return False
    (q, of_q, a), (s, of_s, b) = parts
    ((root, of_root, _),), ((inner, letters),) = terms.parts(s, of_s), terms.terms[q].of[:1]
    sizes = tuple(
        n for n, letter in zip(terms.terms[inner].shape, letters, strict=True) if letter >= len(terms.terms[q].shape)
    )
    shape, over = (*value.shape, *sizes), range(len(value.shape), len(value.shape) + len(sizes))
    roots = [terms.multiply(1.0, [(one, 2.0)]) for one in terms.summands(root, of_root, over, shape)]
    fits = any(same(one, other) for one in terms.summands(q, of_q, over, shape) for other in roots)
    return fits and abs(-b * terms.terms[s].data[0] * prod(sizes) / a - 1) <= 1e-11


Rule = Callable[[Terms, str, Any, list[Value], Value, int], bool]
"""Given the terms, an operation, its parameters and operands, the claimed result, and which one it is."""

RULES: dict[str, tuple[Rule, Collection[str], tuple[str, ...]]] = {
    "identity": (identity, (*IDENTITIES, "mul", "div", "select_n"), ()),
    "view": (view, ("broadcast_in_dim", "reshape", "squeeze", "transpose", *REDUCTIONS), ()),
    "known numbers": (folding, FOLDED, ()),
    "congruence": (congruence, (), ()),
    "products": (arithmetic, (*POWERS, "integer_pow"), (PRODUCTS,)),
    "sums": (arithmetic, SIGNS, (SUMS,)),
    "masks": (arithmetic, ("convert_element_type", "select_n"), (MASKS, PRODUCTS)),
    "linear": (linear, ("dot_general", "reduce_sum"), (LINEAR, PRODUCTS)),
    "two passes": (two_passes, ("reduce_sum",), (TWO_PASS,)),
    "positive": (positive, ("eq", "ge", "gt", "lt", "max"), (POSITIVE,)),
}
"""Rule to what checks it, the operations that it is for (none: all), and the rewrites that a proof has to name."""
