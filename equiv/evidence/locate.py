"""Where two programs first differ: the first equation of each that the other has nothing like, with its source line."""

from typing import Any

from equiv.evidence.algebra import CONDITIONS, Algebra
from equiv.evidence.draws import where
from equiv.evidence.number import Numbering, number_program
from equiv.program import Program

Step = tuple[Any, tuple[str, ...], tuple[str, ...]]


def first_difference(left: Program, right: Program, aliases: dict[str, str], names: tuple[str, str]) -> str:
    """The first equation on each side whose operands both programs have and whose result only its own has.

    Differences that the named rewrites explain do not count.

    Args:
        left: the reference's program.
        right: the candidate's.
        aliases: see `number_program`.
        names: of both backends.

    Returns:
        One sentence; empty where no such equation exists.
    """
    sides = []
    for program in (left, right):
        numbering = Numbering(Algebra(frozenset(CONDITIONS)))
        number_program(program, numbering, aliases)
        sides.append(numbering.steps)
    terms = [{term for _, ins, outs in steps for term in (*ins, *outs)} for steps in sides]
    found = [_first(steps, other) for steps, other in zip(sides, reversed(terms), strict=True)]
    shown = [f"{name} {_shown(eqn)}" for name, eqn in zip(names, found, strict=True) if eqn is not None]
    return f"first different: {'; '.join(shown)}" if shown else ""


def _first(steps: list[Step], other: set[str]) -> Any | None:
    for eqn, ins, outs in steps:
        if any(term not in other for term in outs) and all(term in other for term in ins):
            return eqn
    return None


def _shown(eqn: Any) -> str:
    place = where(eqn)
    return f"{eqn.primitive.name}{f' at {place}' if place else ''}"
