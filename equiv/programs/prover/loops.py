"""Value numbering of loops by their bodies.

The carries of a loop are named in rounds: first by their initial values, then, repeatedly, by what the loop body makes
of them. Carries of equal name then start equal and stay equal (partition refinement: the 2n carries of two loops with n
each fall into at least one class at the start and at most 2n, so the classes stand after 2n - 1 rounds).

A slice is named by its index in the array, whatever the direction of the loop; if one loop stacks a value and another
slices it, the slice is the first loop's own value at that index, so that residuals of a forward scan keep their names
in the backward scan. Indices are those of one loop; a nested loop has its own, so all names carry their loop's depth.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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


def number_scan(loop: ScanLoop, ins: list[TermView], number_body: NumberBody, nest: LoopNest) -> list[TermView]:
    """`jax.lax.scan`: carries, slices, and stacked results."""
    length = loop.length
    fixed, start, scanned = loop.split(ins)
    slices = [_slice_value(value, length, nest) for value in scanned]

    def once(carry: list[TermView]) -> list[TermView]:
        return number_body(loop.body, [*fixed, *carry, *slices])

    with nest.loop_body():
        carry, outs = _refine_carries(start, once, ("scan", nest.depth, length, loop.reverse))
    # A carry during the loop and after it are different values; one that never changes is the same.
    last = [
        begin if now is begin else new_term(digest("last", now.term, out.name, length), begin.shape, begin.dtype)
        for begin, now, out in zip(start, carry, outs[: loop.carries], strict=True)
    ]
    return [*last, *(_stack_value(value, length, nest) for value in outs[loop.carries :])]


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


def _refine_carries(
    start: list[TermView], once: Callable[[list[TermView]], list[TermView]], kind: Any
) -> tuple[list[TermView], list[TermView]]:
    """Name the carries of a loop, and number its body with them. A carry that never changes is its initial value."""
    number = len(start)
    # Fresh names, so that a nested loop does not confuse the outer loop's carry with its own.
    carry = [new_term(digest("carry", fresh_symbol()), value.shape, value.dtype) for value in start]
    outs = once(carry)
    unchanged = [outs[index].name == carry[index].name for index in range(number)]
    # A carry that the body returns unchanged keeps its initial value; the rounds below refine the others.
    carry = [
        value if fixed else new_term(digest("start", kind, value.name), value.shape, value.dtype)
        for value, fixed in zip(start, unchanged, strict=True)
    ]
    for _ in range(2 * (number - sum(unchanged)) - 1):
        outs = once(carry)
        carry = [
            value if fixed else new_term(digest("turn", now.term, out.name), value.shape, value.dtype)
            for value, fixed, now, out in zip(start, unchanged, carry, outs[:number], strict=True)
        ]
    return carry, once(carry)


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
