"""Rules: whether an equation's result is the claimed view of the claimed term. Each looks at one equation alone."""

from collections.abc import Callable, Collection, Iterator
from itertools import count
from math import prod
from typing import Any

import numpy as np

from equiv.certificates.checker.terms import NUMBERS, Terms, Value, need, through, to_text


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
FOLDED |= {"sqrt": np.sqrt, "max": np.maximum, "min": np.minimum, "lt": np.less, "le": np.less_equal, "gt": np.greater}
FOLDED |= {"ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal}
FOLDED |= {"not": np.invert, "and": np.bitwise_and, "or": np.bitwise_or}


def plain(content: Any) -> Any:
    """A parameter without the tags of its tuples: `["tuple", 0, 1]` is `[0, 1]`."""
    need(type(content) is int or content[0] == "tuple", f"{content} is neither a tuple nor a number")
    return [plain(one) for one in content[1:]] if isinstance(content, list) else content


def axes_of(params: dict[str, Any]) -> list[int]:
    """The axes of a reduction, each once."""
    axes = plain(params["axes"])
    need(len(set(axes)) == len(axes), f"an axis stands twice in {axes}")
    return axes


def rest_of(params: dict[str, Any], *without: str) -> str:
    """The other parameters, as text."""
    return to_text({key: value for key, value in params.items() if key not in without})


def dtype_fits(op: str, params: dict[str, Any], dtype: str) -> bool:
    """Whether a result has the dtype that the parameters ask for."""
    asked = [params.get(key) for key in ("out_dtype", "preferred_element_type")]
    need(op != "convert_element_type" or "new_dtype" in params, "a cast to no dtype")
    asked = [one for one in asked if one is not None] + [params[key] for key in ("new_dtype",) if key in params]
    return all(one[:2] == ["dtype", dtype] for one in asked)


def is_ordinary(params: dict[str, Any]) -> bool:
    """Whether an operation has no options, such as an accuracy of its own, besides its power and dtype."""
    return all(value is None for key, value in params.items() if key not in ("y", "new_dtype", "out_dtype"))


def identity(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The result is an operand: the only one, the chosen one, one times or divided by one, the larger beside -inf."""
    if op in IDENTITIES:
        return out == ins[number] and (op == "optimization_barrier" or len(ins) == 1)
    if op == "max":
        least, other = ins if terms.number(ins[0].term) is not None else ins[::-1]
        return bool(terms.number(least.term) == -np.inf) and out == other
    known = terms.number(ins[op != "select_n"].term)
    if op == "select_n":
        return known is not None and 0 <= known < len(ins) - 1 and out == ins[1 + int(known)].spread(out.shape)
    return known == 1 and out == ins[0] and len(ins) == 2


def view(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The same elements in another shape or order of axes, or repeated; a reduction over axes of size one."""
    (value,), rank = ins, len(ins[0].shape)
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
    return len(over) == rank - len(kept) and all(value.shape[axis] == 1 for axis in over) and out == value.take(kept)


def _flat(terms: Terms, value: Value) -> Any:
    """What an array is once its elements stand in one row: of a reshaped one, what was reshaped."""
    it, sizes = terms.terms[value.term], [(axis, n) for axis, n in zip(value.axes, value.shape, strict=True) if n != 1]
    if it.kind == "reshape" and [axis for axis, _ in sizes] == list(range(len(it.shape))):
        return _flat(terms, Value(*it.of[0], tuple(it.data), it.dtype))
    return value.term, it.kind == "number" or sizes


def folding(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """An operation on known numbers, in their dtype."""
    numbers, it = [terms.number(one.term) for one in ins], terms.terms[out.term]
    if any(one is None for one in numbers) or len({one.dtype for one in ins}) > 1 or not is_ordinary(params):
        return False
    with np.errstate(all="ignore"):
        if op == "convert_element_type":
            folded = np.asarray(numbers[0]).astype(out.dtype if out.dtype in NUMBERS else ins[0].dtype)
            if folded.astype(ins[0].dtype) != numbers[0]:
                return False
        else:
            folded = np.asarray(FOLDED[op](*numbers))
    return it.kind == "number" and it.data == folded.tobytes().hex() and folded.dtype.name == out.dtype


def congruence(terms: Terms, op: str, params: Any, ins: list[Value], out: Value, number: int) -> bool:
    """The same operation on the same operands; they may be exchanged where it commutes to the last bit."""
    it = terms.terms[out.term]
    if it.kind == "elementwise":
        squared = (op == "mul" and ins == [ins[0]] * 2) or (op == "integer_pow" and params["y"] == 2)
        if squared and is_ordinary(params):
            op, params, ins = "square", {}, ins[:1]
        params = {} if op == "convert_element_type" else params
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
    sums, batches = ([axes_of(params)], [[]]) if op in REDUCTIONS else plain(params["dimension_numbers"])
    place, labels = count(len(batches[0])), []
    for own, summed, batch in zip(ins, sums, batches, strict=True):
        known = {axis: -1 - n for n, axis in enumerate(summed)} | {axis: n for n, axis in enumerate(batch)}
        need(len(known) == len(summed) + len(batch), "an axis is summed twice")
        labels.append([known[axis] if axis in known else next(place) for axis in range(len(own.shape))])
    sizes = {pair for own, one in zip(labels, ins, strict=True) for pair in zip(own, one.shape, strict=True)}
    precision = params.get("precision")
    turned = [precision[0], *precision[:0:-1]] if isinstance(precision, list) else precision
    rest = rest_of(params, "axes", "dimension_numbers", "precision", "preferred_element_type")
    fits = len(dict(sizes)) == len(sizes) and tuple(size for label, size in sorted(sizes) if label >= 0) == out.shape
    for turn, one in ((1, precision), (-1, turned)) if fits else ():
        if terms.terms[out.term].data == [op, one, rest]:
            yield from terms.operands(out.term, out.axes, labels, [one.shape for one in ins], turn)


Rule = Callable[[Any, str, Any, list[Value], Value, int], bool]
"""Given the terms, an operation, its parameters and operands, the claimed result, and which one it is."""

RULES: dict[str, tuple[Rule, Collection[str], tuple[str, ...]]] = {
    "identity": (identity, (*IDENTITIES, "max", "mul", "div", "select_n"), ()),
    "view": (view, ("broadcast_in_dim", "reshape", "squeeze", "transpose", *REDUCTIONS), ()),
    "known numbers": (folding, (*FOLDED, "convert_element_type"), ()),
    "congruence": (congruence, (), ()),
}
"""Rule to what checks it, the operations that it is for (none: all), and the rewrites that a proof has to name."""
