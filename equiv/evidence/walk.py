"""Along a program value by value: which of the reference's values does the candidate compute, and where does it stop?

Two ports order their operations as they like, so values are not paired by position: each value of the reference is held
against every value of the candidate of its shape, and the nearest counts. One that the candidate has no use for stands
alone and far away; where the programs part, everything from there on does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equiv.details import BACK, Waypoint
from equiv.evidence.depth import EXACT
from equiv.evidence.draws import caller, where
from equiv.evidence.eager import evaluate
from equiv.probe import FLOATS, ulp
from equiv.program import Program
from equiv.results import LEVEL

MOST = 400
"""Values of a program that are looked at: in a longer one the first, where it begins to differ."""

Inputs = Mapping[str, Any]
"""Input name to array."""


@dataclass(frozen=True)
class Value:
    """A value of a program: its equation after the calls around it, and the values that it is made of by number."""

    place: tuple[Any, ...]
    array: np.ndarray
    parents: frozenset[int]


def walk(
    reference: Program, candidate: Program, inputs: tuple[Inputs, Inputs], nudged: Sequence[Inputs]
) -> tuple[Waypoint, ...]:
    """The reference's values in order, each with the error of the candidate's nearest over its budget.

    Call it inside `jax.enable_x64(True)` where the programs are float64.

    Args:
        reference: the reference's program.
        candidate: the candidate's, of the same name.
        inputs: what each is run on.
        nudged: the reference's inputs moved by one ulp, several times.
    """
    values = _values(reference, inputs[0])
    moved = [_values(reference, one) for one in nudged]
    others: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for other in _values(candidate, inputs[1]):
        others.setdefault(_kind(other.array), []).append(other.array)
    ratios, floors = list[float | None](), list[float]()
    for index, value in enumerate(values):
        array = value.array
        least = ulp(array.dtype) * float(np.max(np.abs(array)))
        response = max([least, *(_apart(array, other[index].array) for other in moved)])
        budget = response * (index + 1) ** 0.5 * LEVEL
        nearest = min((_apart(array, other) for other in others.get(_kind(array), ())), default=None)
        ratios.append(None if nearest is None else nearest / budget if budget else 0.0)
        floors.append(response / budget if budget else 0.0)
    lost = _lost(values, [ratio is None or ratio > 1 for ratio in ratios])
    told = zip(values, ratios, floors, lost, strict=True)
    return tuple(Waypoint(*_told(value.place), ratio, floor, gone) for value, ratio, floor, gone in told)[:MOST]


def _lost(values: Sequence[Value], over: Sequence[bool]) -> list[bool]:
    """Values over their budget of which nothing is made that is within it: no other way to the same."""
    met_again = [False] * len(values)
    for index in reversed(range(len(values))):
        for parent in values[index].parents:
            met_again[parent] |= met_again[index] or not over[index]
    return [off and not again for off, again in zip(over, met_again, strict=True)]


def _values(program: Program, inputs: Inputs) -> list[Value]:
    """What is computed and rounded: floats of more than one element."""
    found: list[Value] = []
    made: dict[int, frozenset[int]] = {}
    kept: list[Any] = []  # a number of an object is its own only as long as it lives

    def seen(place: tuple[Any, ...], ins: Sequence[Any], outs: Sequence[Any]) -> None:
        parents = frozenset[int]().union(*(made.get(id(value), frozenset()) for value in ins))
        kept.extend(outs)
        for out in outs:
            array = np.asarray(out)
            rounded = place[-1].primitive.name not in EXACT and str(array.dtype) in FLOATS and array.size > 1
            made[id(out)] = frozenset([len(found)]) if rounded else parents
            if rounded:
                found.append(Value(place, array, parents))

    evaluate(program.jaxpr, [inputs[name] for name in program.inputs], seen)
    return found


def _kind(array: np.ndarray) -> tuple[Any, ...]:
    """What two values must share to be compared: how many elements, in any shape, and their dtype."""
    return array.size, str(array.dtype)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.max(np.abs(one.ravel().astype("float64") - other.ravel().astype("float64"))))


def _told(place: tuple[Any, ...]) -> tuple[str, str]:
    """The primitive with the module that the trace names, and the user's own line."""
    stack = next((line.partition(") in ")[2] for line in map(where, reversed(place)) if line), "")
    module = re.sub(r"transpose\(|jvp\(|\)", "", stack).strip("/")
    way = f" {BACK}" if "transpose(" in stack else ""
    own = next(filter(None, map(caller, reversed(place))), "")
    return f"{place[-1].primitive.name}{way}{f' in {module}' if module else ''}", own
