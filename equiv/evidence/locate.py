"""Where two programs first differ: the first equation of each that the other has nothing like, with its source line."""

from typing import Any

from equiv.evidence.algebra import CONDITIONS, Algebra
from equiv.evidence.draws import where
from equiv.evidence.number import Numbering, number_program
from equiv.evidence.terms import digest
from equiv.program import Program

Step = tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]
"""The calls around an equation and the equation, what goes in, what comes out."""


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
    if not any(found):
        # Where all that is used is alike, something is given that one of them does not use.
        given = {digest("input", aliases.get(name, name)) for program in (left, right) for name in program.inputs}
        found = [_first(steps, other | given) for steps, other in zip(sides, reversed(terms), strict=True)]
    shown = [f"{name} {_shown(place)}" for name, place in zip(names, found, strict=True) if place]
    return f"first different: {'; '.join(shown)}" if shown else ""


def _first(steps: list[Step], other: set[str]) -> tuple[Any, ...]:
    for place, ins, outs in steps:
        if any(term not in other for term in outs) and all(term in other for term in ins):
            return place
    return ()


def _shown(place: tuple[Any, ...]) -> str:
    """The equation, and its line; what a library compiled for itself stands at the line of the call."""
    lines = [line for line in map(where, reversed(place)) if line]
    return f"{place[-1].primitive.name}{f' at {lines[0]}' if lines else ''}"
