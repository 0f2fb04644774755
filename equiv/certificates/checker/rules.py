"""Exact rules: whether a result of an equation is the claimed view of the claimed term."""

from math import prod
from typing import Any, NamedTuple

import numpy as np

from equiv.certificates.checker.terms import Index, Terms, Value, View, as_new, need, read_view, through, whole

COMMUTATIVE = ("add", "and", "eq", "max", "min", "mul", "ne", "or", "xor")
REPEATABLE = ("reduce_and", "reduce_max", "reduce_min", "reduce_or")
NEUTRAL = {"mul": 1, "div": 1, "max": -np.inf, "min": np.inf, "and": True, "or": False}
FOLDED = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "sqrt": "sqrt"}
FOLDED |= {"max": "maximum", "min": "minimum", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
FOLDED |= {"eq": "equal", "ne": "not_equal", "and": "bitwise_and", "or": "bitwise_or", "not": "invert"}
FOLDED |= {"convert_element_type": "asarray"}


class Step(NamedTuple):
    """An equation, one of its results as claimed, and what the certificate gives besides to check it."""

    kind: str
    op: str
    data: Any
    ins: list[Value]
    out: Value
    number: int
    hint: Any


def view(_: Terms, it: Step) -> bool:
    """The same elements at other places, or repeated."""
    if it.kind != "view" or len(it.data) != len(it.ins):
        return False
    value, seen = it.ins[it.number], read_view(it.data[it.number])
    fits = [prod(size for _, _, size in one) for one in seen] == list(value.shape)
    return fits and it.out[:2] == (value.term, through(value.view, dict(enumerate(seen))))


def identity(terms: Terms, it: Step) -> bool:
    """The result is the operand that is chosen, beside a neutral element, or not negative; or a negation is undone."""
    numbers, inner = [terms.number(one.term) for one in it.ins], terms.terms[it.ins[0].term]
    if it.op == "not":
        undone = (inner.kind, inner.data, inner.dtype) == ("elementwise", ["not", "{}"], "bool")
        return undone and terms.are(inner.of, dict(enumerate(it.ins[0].view)), [it.out])
    if it.op == "abs":
        return it.out[:2] == it.ins[0][:2] and is_exponential(terms, it.ins[0].term)
    if it.op == "select_n":
        return numbers[0] is not None and numbers[0] >= 0 and it.out[:2] == it.ins[1 + int(numbers[0])][:2]
    neutral = NEUTRAL[it.op]
    # Of a complex number the other part is multiplied by zero.
    return it.data == "{}" and "complex" not in it.out.dtype and any(
        one is not None and one == neutral and isinstance(one, np.bool_) == isinstance(neutral, bool)
        and (place == 1 or it.op != "div") and it.out[:2] == it.ins[1 - place][:2]
        for place, one in enumerate(numbers)
    )  # fmt: skip


def is_exponential(terms: Terms, term: int) -> bool:
    """Whether a term is `exp` of real numbers, a sum of such along axes, or a positive multiple of one with masks."""
    it = terms.terms[term]
    if it.kind == "elementwise":
        return it.data[0] == "exp" and "float" in it.dtype
    if it.kind == "meeting":
        return it.data[0] == "reduce_sum" and is_exponential(terms, it.of[0][0])
    factors = [one for one, _ in it.of if terms.terms[one].dtype != "bool"]
    fits = it.kind == "product" and it.data[0] > 0 and all(power == 1 for power in it.data[1])
    return fits and all(is_exponential(terms, one) for one in factors)


def folding(terms: Terms, it: Step) -> bool:
    """An operation on known numbers, in their dtype; a cast of one that the other dtype has exactly."""
    numbers, known = [terms.number(one.term) for one in it.ins], terms.number(it.out.term)
    if known is None or any(one is None or one.dtype != numbers[0].dtype for one in numbers) or it.data != "{}":
        return False
    with np.errstate(all="ignore"):
        folded = np.asarray(getattr(np, FOLDED[it.op])(*numbers))
        cast = it.op == "convert_element_type"
        folded = folded.astype(known.dtype) if cast and folded.astype(known.dtype) == folded else folded
    return folded.dtype == known.dtype and folded.tobytes() == known.tobytes()


def congruence(terms: Terms, it: Step) -> bool:
    """The same operation on the same operands; they may be exchanged where it commutes to the last bit."""
    term, out, op, ins = terms.terms[it.out.term], it.out, it.op, it.ins
    if term.kind != it.kind or it.kind == "view":
        return False
    if it.kind == "meeting":
        ins, sizes = relabel(it)
        bound = read_view(it.hint)
        need(copies(bound, term.data[2], sizes) == 1 or op in REPEATABLE, "it sums something else")
        return any(terms.are(of, env, ins) for of, env in met(terms, it, out.term, (*out.view, *bound)))
    if it.kind == "elementwise":
        twice = op == "mul" and ins == [ins[0]] * 2 and "complex" not in out.dtype
        op, ins = ("square", ins[:1]) if twice else (op, ins)
        fits = term.data == [op, it.data] and all(is_repeated(one.shape, out.shape) for one in ins)
        fits = fits and np.broadcast_shapes(*(one.shape for one in ins)) == out.shape
        orders = (ins, ins[::-1]) if op in COMMUTATIVE else (ins,)
        return fits and any(terms.are(term.of, dict(enumerate(out.view)), order) for order in orders)
    # Of another operation nothing is known: its operands are whole arrays, which may change as loops turn.
    own = as_new(out.shape)
    turns = out.view[: len(out.view) - len(own)]
    fits = term.data == [op, it.data, [list(one.shape) for one in ins], it.number, list(out.shape)]
    fits = fits and out.view == (*turns, *own) and all(axis < 0 for one in turns for axis, _, _ in one)
    envs = [dict(enumerate((*turns, *(whole(*one) for one in enumerate(value.shape))))) for value in ins]
    return fits and all(terms.are([of], env, [one]) for of, env, one in zip(term.of, envs, ins, strict=True))


def is_repeated(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of a shape is repeated to another: a scalar, or along axes of size one."""
    return not shape or (len(shape) == len(to) and all(n in (1, size) for n, size in zip(shape, to, strict=True)))


def relabel(it: Step) -> tuple[list[Value], dict[int, int]]:
    """Operands of a reduction or contraction by the axes of its result and, after these, those that it sums.

    Returns:
        The operands; the axes that are summed, with their sizes.
    """
    ins, sizes = list[Value](), dict[int, int]()
    for one, labels in zip(it.ins, it.data[2], strict=True):
        pairs = list(zip(labels, one.shape, strict=True))
        need(all(label >= 0 and sizes.setdefault(label, size) == size for label, size in pairs), "axes do not fit")
        env = {axis: whole(*pair) for axis, pair in enumerate(pairs)}
        ins.append(one._replace(view=through(one.view, env)))
    need(tuple(sizes.pop(axis, None) for axis in range(len(it.out.shape))) == it.out.shape, "axes do not fit")
    return ins, sizes


def met(terms: Terms, it: Step, term: int, view: View) -> list[tuple[Any, dict[int, Index]]]:
    """What a term is of, if it is the reduction or contraction of an equation, in either order; and by which axes."""
    found, orders = terms.terms[term], ((1, it.data[0]), (-1, it.data[1]))
    need(found.kind == "meeting", f"term {term} is no sum")
    env = dict(enumerate(view))
    return [(found.of[::order], env) for order, text in orders if found.data[:2] == [it.op, text]]


def copies(view: View, shape: list[int], sizes: dict[int, int]) -> int:
    """How many indices of axes of these sizes a view takes to each index of a shape, if it takes as many to all."""
    need([prod(size for _, _, size in one) for one in view] == shape, "axes are summed that are not there")
    inner = dict.fromkeys(sizes, 1)
    for axis, divisor, size in sorted(digit for one in view for digit in one):
        need(axis in inner and divisor % inner[axis] == 0, "an axis is summed twice")
        inner[axis] = divisor * size
    need(all(size and size % inner[axis] == 0 for axis, size in sizes.items()), "digits do not fit")
    return prod(sizes.values()) // prod(shape)


RULES = {
    "view": (view, (), ()),
    "identity": (identity, (*NEUTRAL, "select_n", "not", "abs"), ()),
    "known numbers": (folding, tuple(FOLDED), ()),
    "congruence": (congruence, (), ()),
}
"""Rule to what checks it, the operations that it is for (none: all), and the rewrites that a proof has to name."""
