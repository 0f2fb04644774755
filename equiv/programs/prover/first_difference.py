"""Where two programs first differ: the first equation of each that the other does not have, with its source line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from equiv.core.first_difference import FirstDifference, is_backward
from equiv.core.output_name import InputName, OutputName
from equiv.programs.jaxpr import locate_equation
from equiv.programs.primitives import CALLS
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.terms import TermView
from equiv.programs.prover.unrolling import differing_loops
from equiv.programs.prover.value_numbering import Numbering, input_term, number_program

NumberedEquation = tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]
"""The enclosing calls and the equation, its input terms, its output terms."""


def find_first_differences(
    left: Program, right: Program, aliases: Mapping[InputName, InputName], names: tuple[str, str]
) -> tuple[FirstDifference, ...]:
    """Find the first equation on each side whose operands both programs have and whose result only its own has.

    Differences that named rewrites explain do not count.

    Args:
        left: the reference's program.
        right: the candidate's.
        aliases: see `number_program`.
        names: names of both ports.

    Returns:
        That of the reference, then that of the candidate; a port without such an equation is left out.
    """
    loops = differing_loops(left.jaxpr, right.jaxpr)
    sides = [_number_equations(program, aliases, loops)[1] for program in (left, right)]
    terms = [{term for _, ins, outs in steps for term in (*ins, *outs)} for steps in sides]
    # If no such equation exists, a port uses an input that the other does not use: inputs count as shared then.
    given = {
        input_term(aliases.get(name, name), aval.shape): str(aliases.get(name, name))
        for program in (left, right)
        for name, aval in zip(program.inputs, program.jaxpr.in_avals, strict=True)
    }
    found = [
        _first_unmatched(steps, other) or _first_unmatched(steps, other | given.keys())
        for steps, other in zip(sides, reversed(terms), strict=True)
    ]
    return tuple(_make_difference(name, step, given) for name, step in zip(names, found, strict=True) if step)


def find_other_updates(left: Program, right: Program, aliases: Mapping[InputName, InputName]) -> frozenset[OutputName]:
    """Find what two train steps compute otherwise from gradients that are proved to be the same.

    The gradients of a program are what its backward pass leaves to the rest of it.

    Args:
        left: the reference's train step.
        right: the candidate's.
        aliases: see `number_program`.

    Returns:
        Outputs that both have; none where gradients are not the same, or where one has no backward pass that can be
        seen, as in a loop over small batches.
    """
    loops = differing_loops(left.jaxpr, right.jaxpr)
    sides = [_number_equations(program, aliases, loops) for program in (left, right)]
    gradients = [_gradient_terms(steps) for _, steps in sides]
    terms = [{term for _, _, outs in steps for term in outs} for _, steps in sides]
    if not (all(gradients) and gradients[0] <= terms[1] and gradients[1] <= terms[0]):
        return frozenset()
    ours, theirs = (values for values, _ in sides)
    return frozenset(name for name in ours if name in theirs and ours[name].term != theirs[name].term)


def _number_equations(
    program: Program, aliases: Mapping[InputName, InputName], unrolled: frozenset[int]
) -> tuple[Mapping[OutputName, TermView], list[NumberedEquation]]:
    """Number a program under all rewrites: its outputs, and every equation that is no call; some loops written out."""
    numbering = _RecordedNumbering(Algebra(frozenset(CONDITIONS)), unrolled=unrolled)
    return number_program(program, numbering, aliases), numbering.steps


def _gradient_terms(steps: list[NumberedEquation]) -> set[str]:
    """Terms of the backward pass that an equation outside of it takes."""
    backward = [any(is_backward(str(eqn.source_info.name_stack)) for eqn in place) for place, _, _ in steps]
    made = {term for (_, _, outs), inside in zip(steps, backward, strict=True) if inside for term in outs}
    return made.intersection(
        term for (_, ins, _), inside in zip(steps, backward, strict=True) if not inside for term in ins
    )


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


def _make_difference(port: str, step: NumberedEquation, given: Mapping[str, str]) -> FirstDifference:
    place, ins, _ = step
    literals = [item.val for item in place[-1].invars if isinstance(item, core.Literal)]
    numbers = [value for value in literals if np.ndim(value) == 0 and (np.isreal(value) or np.iscomplexobj(value))]
    constants = [f"{complex(one) if np.iscomplexobj(one) else float(one):.6g}" for one in numbers]
    location, user_line, name_stack = locate_equation(place)
    own = location and user_line and location.short == user_line.short
    return FirstDifference(
        port,
        place[-1].primitive.name,
        tuple(dict.fromkeys(given[term] for term in ins if term in given)),
        tuple(dict.fromkeys(constants)),
        location,
        None if own else user_line,
        name_stack,
    )
