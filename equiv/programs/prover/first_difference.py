"""Where two programs first differ: the first equation of each that the other does not have, with its source line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from equiv.core.output_name import InputName
from equiv.programs.jaxpr import source_line, user_source_line
from equiv.programs.primitives import CALLS
from equiv.programs.program import Program
from equiv.programs.prover.algebra import CONDITIONS, Algebra
from equiv.programs.prover.terms import TermView
from equiv.programs.prover.value_numbering import Numbering, input_term, number_program

NumberedEquation = tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]
"""The enclosing calls and the equation, its input terms, its output terms."""


def first_difference(
    left: Program, right: Program, aliases: Mapping[InputName, InputName], names: tuple[str, str]
) -> str:
    """Describe the first equation on each side whose operands both programs have and whose result only its own has.

    Differences that named rewrites explain do not count.

    Args:
        left: the reference's program.
        right: the candidate's.
        aliases: see `number_program`.
        names: names of both backends.

    Returns:
        One sentence; empty where no such equation exists.
    """
    sides = []
    for program in (left, right):
        numbering = _RecordedNumbering(Algebra(frozenset(CONDITIONS)))
        number_program(program, numbering, aliases)
        sides.append(numbering.steps)
    terms = [{term for _, ins, outs in steps for term in (*ins, *outs)} for steps in sides]
    # If no such equation exists, a port uses an input that the other does not use: inputs count as shared then.
    given = {
        input_term(aliases.get(name, name)): str(aliases.get(name, name))
        for program in (left, right)
        for name in program.inputs
    }
    found = [
        _first_unmatched(steps, other) or _first_unmatched(steps, other | given.keys())
        for steps, other in zip(sides, reversed(terms), strict=True)
    ]
    shown = [f"{name} {_describe_step(step, given)}" for name, step in zip(names, found, strict=True) if step]
    return f"first different: {'; '.join(shown)}" if shown else ""


@dataclass
class _RecordedNumbering(Numbering):
    """A numbering that keeps every equation that is no call, in program order."""

    steps: list[NumberedEquation] = field(default_factory=list)

    def step(self, eqn: Any, ins: list[TermView]) -> Sequence[TermView]:
        outs = super().step(eqn, ins)
        if eqn.primitive.name not in CALLS:
            self.steps.append(((*self.calls, eqn), _computed_terms(ins), _computed_terms(outs)))
        return outs


def _computed_terms(values: Sequence[TermView]) -> tuple[str, ...]:
    """Terms that are not constants; a constant belongs to the equation that uses it."""
    return tuple(value.term for value in values if value.constant is None)


def _first_unmatched(steps: list[NumberedEquation], other: set[str]) -> NumberedEquation | None:
    for step in steps:
        _, ins, outs = step
        if any(term not in other for term in outs) and all(term in other for term in ins):
            return step
    return None


def _describe_step(step: NumberedEquation, given: Mapping[str, str]) -> str:
    """Describe an equation: primitive, source line, named inputs and constants.

    An equation inside a library's own jit is described by the line of the call.
    """
    place, ins, _ = step
    lines = [line for line in map(source_line, reversed(place)) if line and not line.startswith(" in ")]
    literals = [item.val for item in place[-1].invars if isinstance(item, core.Literal)]
    operands = [given[term] for term in ins if term in given]
    operands += [f"{float(value):.6g}" for value in literals if np.ndim(value) == 0 and np.isreal(value)]
    given_text = f" with {', '.join(dict.fromkeys(operands))}" if operands else ""
    own = next(filter(None, map(user_source_line, reversed(place))), "")
    called = f", called at {own}" if lines and own and not lines[0].startswith(f"{own}:") else ""
    return f"{place[-1].primitive.name}{f' at {lines[0]}' if lines else ''}{given_text}{called}"
