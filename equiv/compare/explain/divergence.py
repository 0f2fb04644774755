"""Refuted candidates walked beside the reference: from where on do they compute other values?"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from equiv.core.batch_spec import FLOATS
from equiv.core.results import BACK, LEVEL, CheckResult, Finding, Waypoint
from equiv.errors import EquivError
from equiv.programs.compiled import feed
from equiv.programs.eager import evaluate
from equiv.programs.jaxpr import caller, where
from equiv.programs.probes import Probe, nudged, ulp
from equiv.programs.program import Program
from equiv.programs.rounding_depth import EXACT
from equiv.programs.traced_port import Traced, lift_program

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


def walk_values(
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


NUDGES = 2
"""How often the inputs are moved by an ulp."""


FIRST = ("eval ", "call ", "train ", "gradient ")
"""Programs from the simplest on."""


def walked(checks: list[CheckResult], left: Traced, right: Traced, probe: Probe, steps: int) -> list[CheckResult]:
    """The same checks, the first refuted one with the way through its simplest program.

    Args:
        checks: of one candidate.
        left: the reference.
        right: the candidate.
        probe: what both are run on.
        steps: number of train steps that the probe has batches for.
    """
    found = sorted(_refused(checks, left, right), key=lambda pair: pair[0])
    if not found:
        return checks
    _, name, first = found[0]
    with jax.enable_x64(True):
        try:
            pair = lift_program(left, name), lift_program(right, name)
            points = _walk(pair, (left, right), probe, steps)
        except EquivError:
            return checks  # what cannot be run in float64 is said beside its grade
    return [replace(check, walk=points) if check is first else check for check in checks]


def _refused(checks: list[CheckResult], left: Traced, right: Traced) -> Iterator[tuple[int, str, CheckResult]]:
    shared = {part.name for part in left.programs.parts} & {part.name for part in right.programs.parts}
    for check in checks:
        for finding in check.findings:
            name = _program(finding)
            if finding.grade == "refuted" and finding.error and name in shared:
                yield next(index for index, word in enumerate(FIRST) if name.startswith(word)), name, check


def _program(finding: Finding) -> str:
    return finding.place.partition(": ")[0]


def _walk(pair: tuple[Program, Program], ports: tuple[Traced, Traced], probe: Probe, steps: int) -> Any:
    reference, candidate = pair
    inputs = tuple(_inputs(program, port, probe, steps) for program, port in zip(pair, ports, strict=True))
    moved = [_inputs(reference, ports[0], nudged(probe, seed, "float64"), steps) for seed in range(1, NUDGES + 1)]
    return walk_values(reference, candidate, (inputs[0], inputs[1]), moved)


def _inputs(program: Program, port: Traced, probe: Probe, steps: int) -> Inputs:
    """What a probe feeds to one forward or gradient program in float64."""
    programs = replace(port.programs, lifted=True, parts=(program,), begin=None, step=None)
    fed = feed(programs, port.table, steps, probe)
    given: dict[str, Any] = {**fed["variables"], **{f"batch/{name}": one[0] for name, one in fed["batches"].items()}}
    given |= {name.removeprefix(f"{program.name}: "): one for name, one in fed["cotangents"].items()}
    return given | {f"draw/{index}": bits for index, bits in enumerate(fed["draws"][program.name])}
