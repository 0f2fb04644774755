"""The programs of one port as functions of all of their inputs, to be compiled: all of them, or one train step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import TRAINING, InputName, OutputName, batch_input, draw_input, leaf_input
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.exercise import Site, merge_statistics
from equiv.programs.observer import is_worth_observing, observe_program
from equiv.programs.program import Program, Programs

NamedCarry = dict[InputName, Any]

OutputsAndStatistics = tuple[dict[OutputName, Any], list[Any]]
"""Outputs, and the statistics of every site that is observed."""


@dataclass(frozen=True)
class Evaluation:
    """How programs are evaluated.

    Attributes:
        program: a jaxpr and its inputs to its results.
        scan: a loop over train steps, called as `jax.lax.scan`.
    """

    program: Callable[[Any, Sequence[Any]], Sequence[Any]]
    scan: Callable[..., Any]


TRACED = Evaluation(lambda jaxpr, arrays: jaxpr_as_fun(jaxpr)(*arrays), jax.lax.scan)
"""Under the current trace, to be compiled."""


def scan_eagerly(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, given: Any) -> tuple[Any, Any]:
    """The same as `jax.lax.scan`, step by step."""
    found: list[Any] = []
    for number in range(len(jax.tree.leaves(given)[0])):
        carry, outputs = step(carry, jax.tree.map(lambda array, number=number: array[number], given))
        found.append(outputs)
    return carry, jax.tree.map(lambda *arrays: np.stack(arrays), *found)


BY_OPERATION = Evaluation(evaluate_eagerly, scan_eagerly)
"""Operation by operation: nothing is compiled as a whole."""


def part_inputs(program: Program, inputs: Mapping[str, Any], step: int = 0) -> dict[InputName, Any]:
    """The inputs of one forward or gradient program, or of the train step without its carry.

    Args:
        program: the program.
        inputs: from `probe_inputs`.
        step: number of the batch.
    """
    return {
        **{leaf_input(name): array for name, array in inputs["variables"].items()},
        **{batch_input(name): array[step] for name, array in inputs["batches"].items()},
        **inputs["cotangents"].get(program.name, {}),
        **number_draws(inputs["draws"][program.name]),
    }


def number_draws(draws: Sequence[Any]) -> dict[InputName, Any]:
    """The bits of draws by input."""
    return {draw_input(index): bits for index, bits in enumerate(draws)}


def join_programs(
    programs: Programs, sites: list[Site], observe: bool, evaluation: Evaluation = TRACED
) -> Callable[[Mapping[str, Any]], tuple[dict[OutputName, Any], list[Any]]]:
    """All programs as one function; `sites` gets the places that it observes, in the order of their statistics.

    Where a run only double-checks proofs nothing is observed: what is proved holds for every input.
    """

    def fused(inputs: Mapping[str, Any]) -> tuple[dict[OutputName, Any], list[Any]]:
        outputs: dict[OutputName, Any] = {}
        observed: list[tuple[Site, Any]] = []
        for program in programs.parts:
            same = programs.same_in_train_mode(program.name)
            if same is not None:
                outputs |= {output: outputs[output.of(same)] for output in program.outputs}
                continue
            given = part_inputs(program, inputs)
            found, more = _compute_program(program, given, observe and not programs.float64, evaluation)
            outputs |= found
            observed += more
        if programs.begin is not None and programs.step is not None:
            trained = programs.begin, programs.step
            found, more = _scan_train_steps(*trained, inputs, observe and not programs.float64, evaluation)
            outputs |= found
            observed += more
        sites[:] = [site for site, _ in observed]
        return outputs, [statistics for _, statistics in observed]

    return fused


def _compute_program(
    program: Program, given: Mapping[InputName, Any], observe: bool, evaluation: Evaluation
) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    """Compute a program: its outputs, and what it exercises where that is observed."""
    if observe and (program.name.is_forward or is_worth_observing(program)):
        return observe_program(program, [given[name] for name in program.inputs])
    return _call_program(program, given, evaluation), []


def _call_program(program: Program, given: Mapping[InputName, Any], evaluation: Evaluation) -> dict[OutputName, Any]:
    results = evaluation.program(program.jaxpr, [given[name] for name in program.inputs])
    return dict(zip(program.outputs, results, strict=True))


def _scan_train_steps(
    begin: Program, step: Program, inputs: Mapping[str, Any], observe: bool, evaluation: Evaluation
) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    sites: list[Site] = []

    def one(carry: NamedCarry, given: Mapping[str, Any]) -> tuple[NamedCarry, OutputsAndStatistics]:
        outputs, found = compute_step(step, carry, {**given, "late": inputs["late"]}, observe, evaluation)
        sites[:] = [site for site, _ in found]
        return carry_of(step, outputs), (outputs, [statistics for _, statistics in found])

    first = first_carry(begin, step, inputs["variables"], evaluation)
    _, (stacked, seen) = evaluation.scan(one, first, scanned_inputs(step, inputs))
    found = [(site, merge_statistics(site, one)) for site, one in zip(sites, seen, strict=True)]
    return {name.of(TRAINING): value for name, value in stacked.items()}, found


def scanned_inputs(step: Program, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What each train step is given of its own, with the step on axis 0."""
    return {"batches": inputs["batches"], "draws": inputs["draws"][step.name], "counts": inputs["counts"]}


def first_carry(
    begin: Program, step: Program, variables: Mapping[str, Any], evaluation: Evaluation = TRACED
) -> NamedCarry:
    """The carry before the first train step, in the dtypes of the step."""
    named = {leaf_input(name): array for name, array in variables.items()}
    return carry_of(step, _call_program(begin, named, evaluation))


def carry_of(step: Program, outputs: Mapping[OutputName, Any]) -> NamedCarry:
    """What a train step, or what comes before the first, gives to the next one."""
    dtypes = {name: aval.dtype for name, aval in zip(step.inputs, step.jaxpr.in_avals, strict=True) if name.is_carried}
    named = {name.as_input: array for name, array in outputs.items()}
    return {name: jnp.asarray(named[name], dtype) for name, dtype in dtypes.items()}


def compute_step(
    step: Program, carry: NamedCarry, given: Mapping[str, Any], observe: bool, evaluation: Evaluation = TRACED
) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    """Compute one train step: its outputs, and what it exercises where that is observed."""
    batch = {batch_input(name): array for name, array in given["batches"].items()}
    counts = {name: jnp.where(given["late"], late, carry[name]) for name, late in given["counts"].items()}
    return _compute_program(step, {**carry, **counts, **batch, **number_draws(given["draws"])}, observe, evaluation)
