"""Where two programs first differ: the first equation of each that the other has nothing like, with its source line."""

from collections.abc import Mapping

import numpy as np
from jax.extend import core

from equiv.programs.jaxpr import caller, where
from equiv.programs.program import Program
from equiv.programs.prover.algebra import CONDITIONS, Algebra
from equiv.programs.prover.value_numbering import Numbering, Step, input_term, number_program


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
        steps: list[Step] = []
        number_program(program, Numbering(Algebra(frozenset(CONDITIONS)), steps=steps), aliases)
        sides.append(steps)
    terms = [{term for _, ins, outs in steps for term in (*ins, *outs)} for steps in sides]
    # Where all that a port uses is alike, it takes something that is given to both and that the other does not use.
    given = {
        input_term(aliases.get(name, name)): aliases.get(name, name)
        for program in (left, right)
        for name in program.inputs
    }
    found = [
        _first(steps, other) or _first(steps, other | given.keys())
        for steps, other in zip(sides, reversed(terms), strict=True)
    ]
    shown = [f"{name} {_shown(step, given)}" for name, step in zip(names, found, strict=True) if step]
    return f"first different: {'; '.join(shown)}" if shown else ""


def _first(steps: list[Step], other: set[str]) -> Step | None:
    for step in steps:
        _, ins, outs = step
        if any(term not in other for term in outs) and all(term in other for term in ins):
            return step
    return None


def _shown(step: Step, given: Mapping[str, str]) -> str:
    """The equation, its line and what it is given by name or number.

    What a library compiled for itself stands at the line of the call.
    """
    place, ins, _ = step
    lines = [line for line in map(where, reversed(place)) if line and not line.startswith(" in ")]
    literals = [item.val for item in place[-1].invars if isinstance(item, core.Literal)]
    operands = [given[term] for term in ins if term in given]
    operands += [f"{float(value):.6g}" for value in literals if np.ndim(value) == 0 and np.isreal(value)]
    told = f" with {', '.join(dict.fromkeys(operands))}" if operands else ""
    own = next(filter(None, map(caller, reversed(place))), "")
    called = f", called at {own}" if lines and own and not lines[0].startswith(f"{own}:") else ""
    return f"{place[-1].primitive.name}{f' at {lines[0]}' if lines else ''}{told}{called}"
