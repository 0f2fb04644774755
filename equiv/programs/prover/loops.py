"""Loops by what a turn does.

The carries of a loop get names in rounds: first what they start from, then, again and again, what a turn makes of
them. Carries of equal name then start alike and stay alike (partition refinement: the 2n carries of two loops with n
each fall into at least one class at the start and at most 2n, so the classes stand after 2n - 1 rounds).

A slice belongs to a place in the array, whichever way the loop runs over it; what a loop stacked and another slices
again is the first loop's own value at that place, so that what a forward scan kept means the same in the backward one.
Places are those of one turn: a loop within a loop has its own, so all names carry the depth of their loop.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from equiv.programs.jaxpr import opened, scan_parts
from equiv.programs.prover.terms import Value, atom, digest

Turn = Callable[[Any, Sequence[Any], list[Value]], list[Value]]
"""`(jaxpr, consts, inputs)` to outputs, as values."""


@dataclass
class Nest:
    """Loops so far.

    Attributes:
        depth: how many loops are around what is numbered now.
        stacked: depth of a loop and term that it stacked to what a turn put there.
        sliced: depth of a loop and slice to the term that it is sliced from, and the axis.
    """

    depth: int = 0
    stacked: dict[tuple[int, str], Value] = field(default_factory=dict)
    sliced: dict[tuple[int, str], tuple[str, int]] = field(default_factory=dict)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The body of a loop."""
        self.depth += 1
        yield
        self.depth -= 1


def scan(eqn: Any, ins: list[Value], turn: Turn, nest: Nest) -> list[Value]:
    """`jax.lax.scan`: carries, slices, and stacked results."""
    params = eqn.params
    body, consts = opened(params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    length, reverse = params["length"], params["reverse"]
    slices = [_slice(value, length, nest) for value in ins[carried:]]
    start = ins[fixed:carried]

    def once(carry: list[Value]) -> list[Value]:
        return turn(body, consts, [*ins[:fixed], *carry, *slices])

    with nest.inside():
        carry, outs = _settle(start, once, ("scan", nest.depth, length, reverse))
    moving = len(start)
    last = [
        begin if now is begin else atom(digest("last", now.term, out.name, length), begin.shape, begin.dtype)
        for begin, now, out in zip(start, carry, outs[:moving], strict=True)
    ]
    return [*last, *(_stack(value, length, nest) for value in outs[moving:])]


def _settle(
    start: list[Value], once: Callable[[list[Value]], list[Value]], kind: Any
) -> tuple[list[Value], list[Value]]:
    """Names for the carries of a loop, and what a turn gives for them. A carry that no turn changes is its start."""
    number = len(start)
    # Names of their own, lest a loop inside takes the outer loop's carry for its own.
    carry = [atom(digest("carry", next(FRESH)), value.shape, value.dtype) for value in start]
    outs = once(carry)
    still = [outs[index].name == carry[index].name for index in range(number)]
    # A carry that only depends on still ones may be still too; one more look finds those that feed on themselves.
    carry = [
        value if rest else atom(digest("start", kind, value.name), value.shape, value.dtype)
        for value, rest in zip(start, still, strict=True)
    ]
    for _ in range(2 * (number - sum(still)) - 1):
        outs = once(carry)
        carry = [
            value if rest else atom(digest("turn", now.term, out.name), value.shape, value.dtype)
            for value, rest, now, out in zip(start, still, carry, outs[:number], strict=True)
        ]
    return carry, once(carry)


def _slice(value: Value, length: int, nest: Nest) -> Value:
    """One turn's part of a scanned value; the same for every turn where it is repeated."""
    axis, shape = value.axes[0], value.shape[1:]
    if axis is None and value.shape[0] != 1:
        return Value(value.term, value.axes[1:], shape, value.dtype, value.constant)
    if axis is None:
        return atom(digest("slice", value.name), shape, value.dtype)
    inside = nest.stacked.get((nest.depth, value.term))
    if inside is not None and axis == 0:
        axes = tuple(None if other is None else other - 1 for other in value.axes[1:])
        return Value(inside.term, axes, shape, value.dtype, inside.constant)
    axes = tuple(None if other is None else other - (other > axis) for other in value.axes[1:])
    term = digest("slice", nest.depth, value.term, axis, length)
    nest.sliced[nest.depth, term] = value.term, axis
    return Value(term, axes, shape, value.dtype)


def _stack(value: Value, length: int, nest: Nest) -> Value:
    """What every turn gives, stacked: the turn is axis 0 of the term."""
    term = digest("stack", value.term, length, value.dtype)
    if length == 1:
        return Value(digest(term, "once"), (None, *value.axes), (1, *value.shape), value.dtype)
    if (nest.depth, value.term) in nest.sliced:
        # Every turn hands its slice through: the stack is what was sliced.
        whole, axis = nest.sliced[nest.depth, value.term]
        kept = tuple(None if one is None else one + (one >= axis) for one in value.axes)
        return Value(whole, (axis, *kept), (length, *value.shape), value.dtype)
    nest.stacked.setdefault((nest.depth, term), value)
    axes = tuple(None if axis is None else axis + 1 for axis in value.axes)
    return Value(term, (0, *axes), (length, *value.shape), value.dtype)


def while_loop(eqn: Any, ins: list[Value], turn: Turn, nest: Nest) -> list[Value]:
    """`jax.lax.while_loop`: equal tests and equal turns from equal starts."""
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, test_consts = opened(params["cond_jaxpr"])
    body, body_consts = opened(params["body_jaxpr"])
    start = ins[for_body:]
    with nest.inside():
        kind = ("while", nest.depth)
        carry, outs = _settle(start, lambda now: turn(body, body_consts, [*ins[for_test:for_body], *now]), kind)
        (stop,) = turn(test, test_consts, [*ins[:for_test], *carry])
    return [
        begin if now is begin else atom(digest("until", now.term, out.name, stop.name), begin.shape, begin.dtype)
        for begin, now, out in zip(start, carry, outs, strict=True)
    ]


def cond(eqn: Any, ins: list[Value], turn: Turn, _: Nest) -> list[Value]:
    """`jax.lax.cond` and `switch`: the same choice between the same branches."""
    branches = [turn(*opened(branch), list(ins[1:])) for branch in eqn.params["branches"]]
    avals = [var.aval for var in eqn.outvars]
    return [
        atom(digest("cond", ins[0].name, [value.name for value in values]), aval.shape, aval.dtype)
        for aval, values in zip(avals, zip(*branches, strict=True), strict=True)
    ]


FRESH = itertools.count()


RULES: dict[str, Callable[[Any, list[Value], Turn, Nest], list[Value]]] = {
    "scan": scan,
    "while": while_loop,
    "cond": cond,
}
