"""Find where a refuted candidate diverges from the reference: the first value that it does not compute too."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiv.comparison.numeric.blocks import element_responses, finite_difference, measure_blocks
from equiv.comparison.numeric.budgets import limit_finite, over_budget
from equiv.compat import enable_x64
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import rounding_growth
from equiv.core.first_difference import is_backward, strip_transforms
from equiv.core.output_name import InputName, ProgramName
from equiv.core.results import CheckResult, Intermediate
from equiv.errors import EquivError
from equiv.programs.compiled import probe_inputs
from equiv.programs.content import is_key
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.jaxpr import locate_equation
from equiv.programs.joined_programs import part_inputs
from equiv.programs.primitives import EXACT
from equiv.programs.probes import Probe, perturb_by_ulp, widen_array
from equiv.programs.program import Program
from equiv.programs.traced_port import TracedPort, trace_program_float64

MAX_VALUES = 400
"""Most values of a program that are compared: the first ones, where the divergence begins."""

LARGEST_RATIO = sys.float_info.max
"""Stands for an infinite ratio, which JSON lacks: NaN in one value only, or an error where there is no budget."""

InputArrays = Mapping[InputName, Any]


@dataclass(frozen=True)
class ComputedValue:
    """A computed value, its equation after the calls around it, and the indices of the values that it depends on."""

    place: tuple[Any, ...]
    array: np.ndarray
    parents: frozenset[int]


def walk_values(
    reference: Program,
    candidate: Program,
    inputs: tuple[InputArrays, InputArrays],
    nudged: Sequence[InputArrays],
    whole: bool = False,
) -> tuple[Intermediate, ...]:
    """List the reference's values in order, each with the error of the candidate's nearest value over its budget.

    Call it inside `jax.enable_x64(True)` where the programs are float64.

    Args:
        reference: the reference's program.
        candidate: the candidate's, of the same name.
        inputs: what each is run on.
        nudged: the reference's inputs moved by one ulp, several times.
        whole: list all values, not only the first ones.
    """
    values = _computed_values(reference, inputs[0])
    moved = [_computed_values(reference, one) for one in nudged]
    others: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for other in _computed_values(candidate, inputs[1]):
        others.setdefault(_size_and_dtype(other.array), []).append(other.array)
    ratios, floors = list[float | None](), list[float]()
    for index, value in enumerate(values):
        array = value.array
        growth = rounding_growth(index + 1)
        responses = element_responses(measure_blocks(array, [other[index].array for other in moved]), array)
        budgets = limit_finite(growth, responses)
        nearest = min(
            (_worst_ratio(array, other, budgets) for other in others.get(_size_and_dtype(array), ())), default=None
        )
        ratios.append(nearest)
        floors.append(1 / growth if budgets.any() else 0.0)
    lost = _stays_over_budget(values, [ratio is None or ratio > 1 for ratio in ratios])
    rows = zip(values, ratios, floors, lost, strict=True)
    return tuple(_make_intermediate(value.place, ratio, floor, gone) for value, ratio, floor, gone in rows)[
        : None if whole else MAX_VALUES
    ]


def _stays_over_budget(values: Sequence[ComputedValue], over: Sequence[bool]) -> list[bool]:
    """Mark values over their budget from which no value within its budget is computed: the difference stays."""
    met_again = [False] * len(values)
    for index in reversed(range(len(values))):
        for parent in values[index].parents:
            met_again[parent] |= met_again[index] or not over[index]
    return [off and not again for off, again in zip(over, met_again, strict=True)]


def _computed_values(program: Program, inputs: InputArrays) -> list[ComputedValue]:
    """List the values that are computed with rounding: floats of more than one element."""
    found: list[ComputedValue] = []
    made: dict[int, frozenset[int]] = {}
    kept: list[Any] = []  # a number of an object is its own only as long as it lives

    def seen(place: tuple[Any, ...], ins: Sequence[Any], outs: Sequence[Any]) -> None:
        parents = frozenset[int]().union(*(made.get(id(value), frozenset()) for value in ins))
        kept.extend(outs)
        for out in outs:
            if is_key(out):  # an array cannot show its numbers
                made[id(out)] = parents
                continue
            array = np.asarray(out)
            rounded = place[-1].primitive.name not in EXACT and str(array.dtype) in INEXACT_DTYPES and array.size > 1
            made[id(out)] = frozenset([len(found)]) if rounded else parents
            if rounded:
                found.append(ComputedValue(place, array, parents))

    evaluate_eagerly(program.jaxpr, [inputs[name] for name in program.inputs], seen)
    return found


def _size_and_dtype(array: np.ndarray) -> tuple[Any, ...]:
    """What two values must share to be compared: number of elements, in any shape, and dtype."""
    return array.size, str(array.dtype)


def _worst_ratio(one: np.ndarray, other: np.ndarray, budgets: np.ndarray) -> float:
    difference = finite_difference(widen_array(one.ravel()), widen_array(other.ravel()))
    ratio = float(np.max(over_budget(difference, budgets.ravel())))
    return ratio if math.isfinite(ratio) else LARGEST_RATIO


def _make_intermediate(place: tuple[Any, ...], ratio: float | None, floor: float, lost: bool) -> Intermediate:
    _, user_line, stack = locate_equation(place)
    primitive, module = place[-1].primitive.name, strip_transforms(stack)
    return Intermediate(primitive, ratio, floor, lost, module, is_backward(stack), user_line)


DIVERGENCE_NUDGES = 2
"""Number of runs with every input moved by an ulp."""


def add_divergence(
    checks: list[CheckResult], left: TracedPort, right: TracedPort, probe: Probe, steps: int
) -> list[CheckResult]:
    """Add the values of the simplest refuted program, in order, to the check that refuted it.

    Args:
        checks: of one candidate.
        left: the reference.
        right: the candidate.
        probe: the inputs of both.
        steps: number of train steps that the probe has batches for.
    """
    found = list(_refuted_programs(checks, left, right))
    if not found:
        return checks
    name, first = min(found, key=lambda pair: pair[0].complexity)
    with enable_x64(True):
        try:
            pair = trace_program_float64(left, name), trace_program_float64(right, name)
            points = _walk_programs(pair, (left, right), probe, steps)
        except EquivError:
            return checks  # the note of its grade says why there is no float64 run
    return [replace(check, intermediates=points) if check is first else check for check in checks]


def _refuted_programs(
    checks: list[CheckResult], left: TracedPort, right: TracedPort
) -> Iterator[tuple[ProgramName, CheckResult]]:
    shared = {part.name for part in left.programs.parts} & {part.name for part in right.programs.parts}
    for check in checks:
        for finding in check.findings:
            output = finding.output if finding.grade == "refuted" and finding.error else None
            if output is not None and not output.after_training and output.program in shared:
                yield output.program, check


def _walk_programs(
    pair: tuple[Program, Program], ports: tuple[TracedPort, TracedPort], probe: Probe, steps: int
) -> Any:
    reference, candidate = pair
    inputs = tuple(_program_inputs(program, port, probe, steps) for program, port in zip(pair, ports, strict=True))
    moved = [
        _program_inputs(reference, ports[0], perturb_by_ulp(probe, seed, "float64"), steps)
        for seed in range(1, DIVERGENCE_NUDGES + 1)
    ]
    return walk_values(reference, candidate, (inputs[0], inputs[1]), moved)


def _program_inputs(program: Program, port: TracedPort, probe: Probe, steps: int) -> InputArrays:
    """Give the inputs of one forward or gradient program on a probe, in float64."""
    programs = replace(port.programs, float64=True, parts=(program,), begin=None, step=None)
    return part_inputs(program, probe_inputs(programs, port.table, steps, probe))
