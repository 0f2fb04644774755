"""Run one port's programs operation by operation, so that a mutated program needs no compilation.

A mutant differs from its original in a few operations, so running it eagerly is cheaper than compiling it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.numeric.rounding import measure_responses, output_depths
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS, Outputs, RoundingNoise
from equiv.compat import enable_x64
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.core.output_name import BEGIN, TRAINING, OutputName, ProgramName, batch_input, leaf_input
from equiv.errors import PortError
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import probe_inputs
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.joined_programs import number_draws, part_inputs
from equiv.programs.probes import NamedArrays, Probe, to_float64
from equiv.programs.program import Program, Programs
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.traced_port import TracedPort, trace_port_float64

StepOutputs = dict[tuple[ProgramName, int], Outputs]
"""`(program, step)` to outputs."""


@dataclass(frozen=True, eq=False)
class EagerPort:
    """The programs of one port in one precision, with the probes that they are run on.

    Attributes:
        traced: the port.
        programs: its programs, in float64 or its own precision.
        steps: number of train steps.
        probes: in that precision.
    """

    traced: TracedPort
    programs: Programs
    steps: int
    probes: Mapping[str, Probe]

    def inputs(self, probe: Probe) -> dict[str, Any]:
        """Make the inputs of the programs from a probe."""
        own: NamedArrays = self.traced.fresh if probe.name == FRESH_STATE else {}
        return probe_inputs(self.programs, self.traced.table, self.steps, probe, own)

    def part(self, program: Program, inputs: Mapping[str, Any]) -> Outputs:
        """Run one forward or gradient program."""
        return _evaluate_program(program, part_inputs(program, inputs))

    def train(self, begin: Program, step: Program, inputs: Mapping[str, Any]) -> Iterator[Outputs]:
        """Run training and yield the outputs of every step."""
        variables = {leaf_input(name): array for name, array in inputs["variables"].items()}
        carry = {name.as_input: array for name, array in _evaluate_program(begin, variables).items()}
        for number in range(self.steps):
            batch = {batch_input(name): array[number] for name, array in inputs["batches"].items()}
            draws = number_draws([bits[number] for bits in inputs["draws"][step.name]])
            outputs = _evaluate_program(step, {**variables, **carry, **batch, **draws})
            carry |= {name.as_input: array for name, array in outputs.items()}
            yield {name.of(TRAINING): array for name, array in outputs.items()}

    def all(self, mutant: Program, probe: str) -> Iterator[Outputs]:
        """Run one program on a probe; a program of training gives the outputs of every step."""
        begin, step, inputs = self.programs.begin, self.programs.step, self.inputs(self.probes[probe])
        if not mutant.name.is_training:
            yield self.part(mutant, inputs)
        elif begin is not None and step is not None:
            yield from self.train(*((mutant, step) if mutant.name == BEGIN else (begin, mutant)), inputs)

    def probe_names(self, program: Program) -> list[str]:
        """Name the probes of a program: nothing is trained on `LARGE_INPUTS`, and `FRESH_STATE` is for training."""
        return [name for name in self.probes if name != (LARGE_INPUTS if program.name.is_training else FRESH_STATE)]


def _evaluate_program(program: Program, named: Mapping[Any, Any]) -> dict[OutputName, np.ndarray]:
    """Run a program on arrays by the name of its inputs."""
    with enable_x64(True), np.errstate(all="ignore"):
        results = evaluate_eagerly(program.jaxpr, [named[name] for name in program.inputs])
    return dict(zip(program.outputs, results, strict=True))


def open_eager_port(built_case: BuiltCase, traced: TracedPort, fresh: bool, in_float64: bool = True) -> EagerPort:
    """Prepare a traced port for eager runs, with the probes of a run.

    Args:
        built_case: the case.
        traced: the port.
        fresh: use default-initialised parameters and an all-ones batch.
        in_float64: in float64, else in the port's own precision.

    Raises:
        EquivError: it cannot be traced so.
    """
    programs = trace_port_float64(traced) if in_float64 else traced.programs
    if isinstance(programs, str):
        raise PortError(f"{traced.port.name}: {programs}", port=traced.port.name)
    table = built_case.built[next(iter(built_case.case.models))].table
    made = (
        [_fresh_probe(probe, table) for probe in make_probes(built_case, table)[:2]]
        if fresh
        else make_probes(built_case, table)
    )
    if in_float64:
        made = [replace(one, variables=to_float64(one.variables), batches=to_float64(one.batches)) for one in made]
    return EagerPort(traced, programs, built_case.case.steps, {probe.name: probe for probe in made})


def _fresh_probe(probe: Probe, table: LeafTable) -> Probe:
    """Set biases and means to zero, scales and variances to one, and the batch to ones; kernels stay random."""

    def leaf(name: str, array: np.ndarray) -> np.ndarray:
        last, is_state = name.rpartition("/")[2], table[name].spec.collection == "state"
        if last.startswith(("scale", "var")):
            return np.ones_like(array)
        return np.zeros_like(array) if is_state or array.ndim < 2 or str(array.dtype) not in INEXACT_DTYPES else array

    return replace(
        probe,
        variables={name: leaf(name, array) for name, array in probe.variables.items()},
        batches=probe.vary_batches(np.ones_like),
    )


def measure_eager_noise(port: EagerPort) -> RoundingNoise:
    """Measure the rounding noise of a port that runs equation by equation, in its one precision.

    It is stored as `native`, with which `equiv.comparison.selfcheck.detection` compares.
    """

    def run(probe: Probe) -> Outputs:
        return stacked_outputs(replace(port, probes={probe.name: probe}))[probe.name]

    responses = measure_responses(run, stacked_outputs(port), list(port.probes.values()), port.programs.float64)
    return RoundingNoise(responses, {}, output_depths(port.programs, port.steps))


def stacked_outputs(port: EagerPort) -> dict[str, Outputs]:
    """Run every program on every probe: probe to outputs, those of training stacked over steps."""
    stacked: dict[str, Outputs] = {}
    for probe, runs in all_outputs(port).items():
        found: dict[OutputName, list[np.ndarray]] = {}
        for outputs in runs.values():
            for output, array in outputs.items():
                found.setdefault(output, []).append(array)
        stacked[probe] = {output: np.stack(arrays) for output, arrays in found.items()}
    return stacked


def all_outputs(port: EagerPort) -> dict[str, StepOutputs]:
    """Run every program on every probe: probe to outputs."""
    programs = [part for part in all_programs(port.programs) if part.name != BEGIN]
    return {
        probe: {
            (program.name, step): outputs
            for program in programs
            if probe in port.probe_names(program)
            for step, outputs in enumerate(port.all(program, probe))
        }
        for probe in port.probes
    }
