"""Value numbering of loops by their bodies.

The carries of a loop are named in rounds: first by their initial values, then, repeatedly, by what the loop body makes
of them. Carries of equal name then start equal and stay equal (partition refinement: where what each of two carries
depends on falls into n classes, that of both falls into at least one class at the start and at most 2n, so that the
classes stand after 2n - 1 rounds). A carry of which the body makes a concatenation is as many carries as there are
pieces: the gradient of one kernel is carried like those of several.

A slice is named by its index in the array, whatever the direction of the loop; if one loop stacks a value and another
slices it, the slice is the first loop's own value at that index, so that residuals of a forward scan keep their names
in the backward scan. Indices are those of one loop; a nested loop has its own, so all names carry their loop's depth.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from equiv.programs.content import digest
from equiv.programs.identity import fresh_symbol
from equiv.programs.jaxpr import ScanLoop, WhileLoop
from equiv.programs.prover.digits import opaque_view, renumber_axis
from equiv.programs.prover.moves import add_axis, take
from equiv.programs.prover.pieces import Pieces
from equiv.programs.prover.terms import TermView, new_term

NumberBody = Callable[[Any, list[TermView]], list[TermView]]
"""Numbers a loop body: `(jaxpr, inputs)` to outputs, as term views."""


@dataclass
class LoopNest:
    """The loops numbered so far.

    Attributes:
        depth: how many loops enclose the current equation.
        stacked: depth of a loop and stacked term to the value inside the body.
        sliced: depth of a loop and slice to the sliced term and the axis.
    """

    depth: int = 0
    stacked: dict[tuple[int, str], TermView] = field(default_factory=dict)
    sliced: dict[tuple[int, str], tuple[str, int]] = field(default_factory=dict)

    @contextmanager
    def loop_body(self) -> Iterator[None]:
        """Enter the body of a loop."""
        self.depth += 1
        yield
        self.depth -= 1


def number_scan(
    loop: ScanLoop, ins: list[TermView], number_body: NumberBody, nest: LoopNest, pieces: Pieces
) -> list[TermView]:
    """`jax.lax.scan`: carries, slices, and stacked results."""
    length = loop.length
    fixed, start, scanned = loop.split(ins)
    slices = [_slice_value(value, length, nest) for value in scanned]

    def once(carry: list[TermView]) -> list[TermView]:
        return number_body(loop.body, [*fixed, *carry, *slices])

    with nest.loop_body():
        cut = _cut_carries(_Carried(start, once, list), pieces)
        carry, outs = _refine_carries(cut.start, cut.once, ("scan", nest.depth, length, loop.reverse))
    # A carry during the loop and after it are different values; one that never changes is the same.
    last = [
        begin if now is begin else new_term(digest("last", now.term, out.name, length), begin.shape, begin.dtype)
        for begin, now, out in zip(cut.start, carry, outs, strict=False)
    ]
    return [*cut.join(last), *(_stack_value(value, length, nest) for value in outs[len(last) :])]


Values = list[TermView]


@dataclass(frozen=True)
class _Carried:
    """The carries of a loop: their start, the body, and what makes the program's own carries of these."""

    start: Values
    once: Callable[[Values], Values]
    join: Callable[[Values], Values]


def _cut_carries(carried: _Carried, pieces: Pieces) -> _Carried:
    """Cut carries where the body makes concatenations of them, along one axis after the other."""
    while carried.start:
        fresh = [_fresh_carry(value) for value in carried.start]
        outs = carried.once(fresh)
        if not pieces.near:  # not before the body is numbered: there may be concatenations in it
            break
        ends = [_find_ends(pieces, now, out) for now, out in zip(fresh, outs, strict=False)]
        if all(one is None for one in ends) or sum(1 if one is None else len(one[1]) for one in ends) > MOST_PIECES:
            break
        carried = _cut_once(carried, ends, pieces)
    return carried


MOST_PIECES = 64
"""Into how many pieces the carries of a loop are cut at most: its body is numbered twice for each."""

Ends = tuple[int, list[tuple[int, int]]]
"""An axis, and where each piece along it starts and stops."""


def _find_ends(pieces: Pieces, carry: TermView, out: TermView) -> Ends | None:
    """The first axis along which a carry is put together, and its pieces; None where it is not."""
    if out.name == carry.name:
        return None
    for axis, size in enumerate(out.shape):
        places = sorted(pieces.cut_places(out, axis))
        if places:
            return axis, list(pairwise([0, *places, size]))
    return None


def _cut_once(carried: _Carried, ends: Sequence[Ends | None], pieces: Pieces) -> _Carried:
    """Cut carries along one axis each."""

    def cut(values: Values) -> Values:
        groups = [
            [value] if one is None else [pieces.slice(value, one[0], *end) for end in one[1]]
            for value, one in zip(values, ends, strict=True)
        ]
        return list(chain(*groups))

    def join(parts: Values) -> Values:
        left = iter(parts)
        return [next(left) if one is None else pieces.concatenate([next(left) for _ in one[1]], one[0]) for one in ends]

    def once(parts: Values) -> Values:
        outs = carried.once(join(parts))
        return [*cut(outs[: len(ends)]), *outs[len(ends) :]]

    return _Carried(cut(carried.start), once, lambda parts: carried.join(join(parts)))


def unroll_scan(loop: ScanLoop, ins: list[TermView], number_body: NumberBody, pieces: Pieces) -> list[TermView]:
    """`jax.lax.scan` turn by turn, as if it were written out."""
    fixed, carry, scanned = loop.split(ins)
    rows = []
    for index in loop.iterations:
        slices = [take(pieces, value, 0, index) for value in scanned]
        outs = number_body(loop.body, [*fixed, *carry, *slices])
        carry = outs[: loop.carries]
        rows.append([add_axis(value, 0) for value in outs[loop.carries :]])
    stacked = zip(*(rows[::-1] if loop.reverse else rows), strict=True)
    return [*carry, *(pieces.concatenate(values, 0) for values in stacked)]


def _refine_carries(start: Values, once: Callable[[Values], Values], kind: Any) -> tuple[Values, Values]:
    """Name the carries of a loop, and number its body with them. A carry that never changes is its initial value.

    How many rounds a carry's name takes is decided by those carries alone on which it depends: others, as a counter
    that nothing reads, and carries that are the same twice, do not count.
    """
    # Fresh names, so that a nested loop does not confuse the outer loop's carry with its own.
    fresh = [_fresh_carry(value) for value in start]
    outs = once(fresh)
    moving = [index for index, value in enumerate(fresh) if outs[index].name != value.name]
    # A carry that the body returns unchanged keeps its initial value; the rounds below refine the others.
    first = [fresh[index] if index in moving else value for index, value in enumerate(start)]
    needs = _find_needs(first, once, moving)
    carry = [
        new_term(digest("start", kind, value.name), value.shape, value.dtype) if index in moving else value
        for index, value in enumerate(start)
    ]
    rounds, classes = [carry], [0]
    while _count_classes(rounds[-1], moving) > classes[-1]:
        classes.append(_count_classes(rounds[-1], moving))
        rounds.append(_next_round(rounds[-1], once, moving))
    turns = {index: 2 * _count_classes(rounds[-1], needs[index]) - 1 for index in moving}
    while len(rounds) <= max(turns.values(), default=0):
        rounds.append(_next_round(rounds[-1], once, moving))
    carry = [rounds[turns[index]][index] if index in moving else value for index, value in enumerate(start)]
    return carry, once(carry)


def _count_classes(carry: Values, among: Iterable[int]) -> int:
    return len({carry[index].term for index in among})


def _fresh_carry(value: TermView) -> TermView:
    return new_term(digest("carry", fresh_symbol()), value.shape, value.dtype)


def _next_round(carry: Values, once: Callable[[Values], Values], moving: Sequence[int]) -> Values:
    outs = once(carry)
    return [
        new_term(digest("turn", now.term, outs[index].name), now.shape, now.dtype) if index in moving else now
        for index, now in enumerate(carry)
    ]


def _find_needs(first: Values, once: Callable[[Values], Values], moving: Sequence[int]) -> dict[int, set[int]]:
    """Each changing carry to those whose values decide it sooner or later: itself, and all that these depend on."""
    needs = {index: {index} for index in moving}
    outs = once(first) if len(moving) > 1 else []
    for index in moving if len(moving) > 1 else ():
        other = once([*first[:index], _fresh_carry(first[index]), *first[index + 1 :]])
        for reader in moving:
            if other[reader].name != outs[reader].name:
                needs[reader].add(index)
    for _ in moving:
        needs = {index: found.union(*(needs[one] for one in found)) for index, found in needs.items()}
    return needs


def _slice_value(value: TermView, length: int, nest: LoopNest) -> TermView:
    """One iteration's slice of a scanned value; the value itself where the scanned axis is broadcast."""
    # The scanned axis has to be one of the term's, or repeated; on the others there may be digits.
    value = opaque_view(value) if isinstance(value.axes[0], tuple) else value
    axis, shape = value.axes[0], value.shape[1:]
    if axis is None and value.shape[0] != 1:
        return TermView(value.term, value.axes[1:], shape, value.dtype, value.constant)
    if axis is None:
        return new_term(digest("slice", value.name), shape, value.dtype)
    inside = nest.stacked.get((nest.depth, value.term))
    if inside is not None and axis == 0:
        axes = tuple(renumber_axis(other, lambda one: one - 1) for other in value.axes[1:])
        return TermView(inside.term, axes, shape, value.dtype, inside.constant)
    axes = tuple(renumber_axis(other, lambda one: one - (one > axis)) for other in value.axes[1:])
    term = digest("slice", nest.depth, value.term, axis, length)
    nest.sliced[nest.depth, term] = value.term, axis
    return TermView(term, axes, shape, value.dtype)


def _stack_value(value: TermView, length: int, nest: LoopNest) -> TermView:
    """Stack a value of the body over iterations, on axis 0 of the term."""
    # With the depth: an inner loop that stacks what the outer one gives it repeats it, and does not collect it.
    term = digest("stack", nest.depth, value.term, length, value.dtype)
    if length == 1:
        return TermView(digest(term, "once"), (None, *value.axes), (1, *value.shape), value.dtype)
    if (nest.depth, value.term) in nest.sliced:
        # Every iteration returns its slice unchanged: the stack is the scanned array.
        whole, axis = nest.sliced[nest.depth, value.term]
        kept = tuple(renumber_axis(other, lambda one: one + (one >= axis)) for other in value.axes)
        return TermView(whole, (axis, *kept), (length, *value.shape), value.dtype)
    nest.stacked.setdefault((nest.depth, term), value)
    axes = tuple(renumber_axis(axis, lambda one: one + 1) for axis in value.axes)
    return TermView(term, (0, *axes), (length, *value.shape), value.dtype)


def number_while(loop: WhileLoop, ins: list[TermView], number_body: NumberBody, nest: LoopNest) -> list[TermView]:
    """`jax.lax.while_loop`: equal conditions and equal bodies from equal initial values."""
    for_test, for_body, start = loop.split(ins)
    with nest.loop_body():
        kind = ("while", nest.depth)
        carry, outs = _refine_carries(start, lambda now: number_body(loop.body, [*for_body, *now]), kind)
        # The test is numbered with the final names: it decides which iteration's carry is the result.
        (stop,) = number_body(loop.test, [*for_test, *carry])
    return [
        begin if now is begin else new_term(digest("until", now.term, out.name, stop.name), begin.shape, begin.dtype)
        for begin, now, out in zip(start, carry, outs, strict=True)
    ]


def number_cond(eqn: Any, ins: list[TermView], number_body: NumberBody) -> list[TermView]:
    """`jax.lax.cond` and `switch`: the same index and the same branches."""
    # The index is not known, so that the name of a result has what every branch makes.
    branches = [number_body(branch, ins[1:]) for branch in eqn.params["branches"]]
    avals = [var.aval for var in eqn.outvars]
    return [
        new_term(digest("cond", ins[0].name, [value.name for value in values]), aval.shape, aval.dtype)
        for aval, values in zip(avals, zip(*branches, strict=True), strict=True)
    ]
