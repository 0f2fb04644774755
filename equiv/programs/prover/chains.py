"""Long sums that are written one term after the other, `((a + b) + c) + d`, and used only at their end.

In normal form a sum is flat, so that every step of such a chain would have all terms before it: as many as the square
of its length. So a step that nothing but the next one uses is put off, and the last one makes the sum of all terms at
once: the same sum of the same terms. The norm of all gradients is such a chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend import core

from equiv.programs.content import digest
from equiv.programs.jaxpr import open_jaxpr
from equiv.programs.primitives import ADDITIONS, is_jax_primitive
from equiv.programs.prover.terms import TermView, dtype_name, new_term

LONG_CHAIN = 8
"""Number of steps above which they are put off."""


@dataclass(frozen=True)
class PartialSum(TermView):
    """A step of a chain whose terms are not added up yet.

    Attributes:
        operands: the operands of the addition.
    """

    operands: tuple[TermView, ...] = ()


def find_chains(jaxpr: Any) -> frozenset[Any]:
    """Find the steps of long chains of additions: the variables of their results; the last of each is left out."""
    opened = open_jaxpr(jaxpr)[0]
    uses: dict[Any, int] = {}
    for atom in (atom for eqn in opened.eqns for atom in eqn.invars if isinstance(atom, core.Var)):
        uses[atom] = uses.get(atom, 0) + 1
    kept = {atom for atom in opened.outvars if isinstance(atom, core.Var)}
    # A variable that is used once to the steps that end with it; the chains that are used otherwise.
    open_chains: dict[Any, list[Any]] = {}
    ended: list[list[Any]] = []
    for eqn in filter(_is_addition, opened.eqns):
        (out,) = eqn.outvars
        steps: list[Any] = []
        for atom in eqn.invars:
            before = open_chains.pop(atom, []) if isinstance(atom, core.Var) else []
            longer, shorter = (steps, before) if len(steps) > len(before) else (before, steps)
            longer.extend(shorter)
            steps = longer
        steps.append(out)
        if uses.get(out) == 1 and out not in kept:
            open_chains[out] = steps
        else:
            ended.append(steps)
    # What is used once by something else ends there.
    long = (steps for steps in (*ended, *open_chains.values()) if len(steps) > LONG_CHAIN)
    return frozenset(step for steps in long for step in steps[:-1])


def _is_addition(eqn: Any) -> bool:
    name, outs = eqn.primitive.name, eqn.outvars
    return name in ADDITIONS and is_jax_primitive(eqn.primitive) and "float" in dtype_name(outs[0].aval.dtype)


def put_off(eqn: Any, ins: Sequence[TermView]) -> PartialSum:
    """A step of a chain, which is named by its operands in any order."""
    aval = eqn.outvars[0].aval
    named = new_term(digest("partial sum", sorted(one.name for one in ins)), aval.shape, aval.dtype)
    return PartialSum(named.term, named.axes, named.shape, named.dtype, None, tuple(ins))


def as_written(eqn: Any, ins: Sequence[TermView]) -> TermView:
    """The end of a chain, which is named by its steps: what uses it is no step, and does not add up its terms."""
    named = put_off(eqn, ins)
    return TermView(named.term, named.axes, named.shape, named.dtype)


def all_operands(ins: Sequence[TermView]) -> list[TermView]:
    """What is added up by the last step of a chain."""
    left, found = list(ins), []
    while left:
        one = left.pop()
        if isinstance(one, PartialSum):
            left.extend(one.operands)
        else:
            found.append(one)
    return found
