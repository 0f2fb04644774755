"""Constants of an optimizer that differ beside what a simpler program already explains: found without running it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from equiv.core.first_difference import OPTIMIZER, FirstDifference, strip_transforms
from equiv.programs.jaxpr import locate_equation, visit_equations
from equiv.programs.program import Program


def find_settings(
    steps: tuple[Program, Program], names: tuple[str, str]
) -> list[tuple[FirstDifference, FirstDifference]]:
    """Find lines of a library that have one constant in the reference's update and another in the candidate's.

    Args:
        steps: the train steps of the reference and of the candidate.
        names: of both ports.

    Returns:
        Both places of each such line, one for each line of the user's.
    """
    ours, theirs = (_read_settings(step) for step in steps)
    found: dict[object, tuple[FirstDifference, FirstDifference]] = {}
    for key, (number, path) in theirs.items():
        wanted, place = ours.get(key, (None, path))
        if number is None or wanted is None or np.isclose(number, wanted, rtol=1e-9, atol=0.0):
            continue
        sites = _describe(names[0], place, wanted), _describe(names[1], path, number)
        function = str(sites[1].location.function).partition(".")[0] if sites[1].location else ""
        found.setdefault((function, str(sites[1].call_site)), sites)
    return list(found.values())


def _read_settings(step: Program) -> dict[tuple[object, ...], tuple[float | None, Sequence[Any]]]:
    """Library's line, primitive and index of an operand to its number, None where there are several, and its place."""
    found: dict[tuple[object, ...], tuple[float | None, Sequence[Any]]] = {}
    for around, eqn in visit_equations(step.jaxpr):
        if "jvp(" in str(eqn.source_info.name_stack):
            continue  # the loss and its gradient
        for index, atom in enumerate(eqn.invars):
            if not isinstance(atom, core.Literal) or np.ndim(atom.val) or len(eqn.invars) < 2:
                continue
            path = (*around, eqn)
            location, user_line, _ = locate_equation(path)
            if location is None or user_line is None or location.short == user_line.short:
                continue
            key, number = (str(location), eqn.primitive.name, index), float(atom.val)
            before = found.get(key)
            same = before is None or before[0] == number
            found[key] = (number if same else None, path if before is None else before[1])
    return found


def _describe(port: str, path: Sequence[Any], number: float) -> FirstDifference:
    location, user_line, stack = locate_equation(path)
    name = path[-1].primitive.name
    return FirstDifference(
        port, name, (), (f"{number:.6g}",), location, user_line, stack, OPTIMIZER, strip_transforms(stack)
    )
