"""One port's programs run operation by operation: a program with one fault costs as little as a run.

A mutant differs from its original in a few operations, so nothing of it need be compiled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from equiv.compare.numeric.probe_set import probes
from equiv.compare.numeric.rounding import NUDGES, depths_of
from equiv.compare.observation import Noise, Outputs
from equiv.core.batch_spec import FLOATS
from equiv.core.leaves import LeafTable
from equiv.errors import PortError
from equiv.programs.built_case import Workshop
from equiv.programs.compiled import Executable, feed
from equiv.programs.eager import evaluate
from equiv.programs.probes import Arrays, Probe, nudged, widened
from equiv.programs.program import Program, Programs
from equiv.programs.prover.prove import every
from equiv.programs.traced_port import Traced, lift_port, trace_port

TRAINING = ("begin", "step")


Turns = dict[tuple[str, int], Outputs]
"""`(program, step)` to outputs."""


@dataclass(frozen=True, eq=False)
class Trial:
    """The programs of one port in one precision, with what they are run on.

    Attributes:
        traced: the port.
        programs: its programs, in float64 or its own precision.
        steps: number of train steps.
        probes: in that precision.
    """

    traced: Traced
    programs: Programs
    steps: int
    probes: Mapping[str, Probe]

    def inputs(self, probe: Probe) -> dict[str, Any]:
        """What a probe feeds to the programs."""
        own: Arrays = self.traced.fresh if probe.name == "cold" else {}
        return feed(self.programs, self.traced.table, self.steps, probe, own)

    def part(self, program: Program, inputs: Mapping[str, Any]) -> Outputs:
        """One forward or gradient program."""
        given = {**inputs["variables"], **{f"batch/{name}": array[0] for name, array in inputs["batches"].items()}}
        for name, array in inputs["cotangents"].items():
            if name.startswith(f"{program.name}: "):
                given[name.removeprefix(f"{program.name}: ")] = array
        return _run(program, given, inputs["draws"][program.name], f"{program.name}: ")

    def train(self, begin: Program, step: Program, inputs: Mapping[str, Any]) -> Iterator[Outputs]:
        """What every train step gives."""
        carry = {**inputs["variables"], **_run(begin, inputs["variables"], [], "")}
        for number in range(self.steps):
            batch = {f"batch/{name}": array[number] for name, array in inputs["batches"].items()}
            outputs = _run(step, {**carry, **batch}, [bits[number] for bits in inputs["draws"]["step"]], "")
            carry = {**carry, **outputs}
            yield {f"train: {name}": array for name, array in outputs.items()}

    def all(self, mutant: Program, probe: str) -> Iterator[Outputs]:
        """All that a probe shows of one program, step by step where it is part of training."""
        begin, step, inputs = self.programs.begin, self.programs.step, self.inputs(self.probes[probe])
        if mutant.name not in TRAINING:
            yield self.part(mutant, inputs)
        elif begin is not None and step is not None:
            yield from self.train(*((mutant, step) if mutant.name == "begin" else (begin, mutant)), inputs)

    def shows(self, program: Program) -> list[str]:
        """The probes that a program is run on: nothing is trained on large inputs, and `cold` is for training."""
        return [name for name in self.probes if name != ("wide" if program.name in TRAINING else "cold")]


def _run(program: Program, given: Mapping[str, Any], draws: Sequence[Any], prefix: str) -> dict[str, np.ndarray]:
    named = {**given, **{f"draw/{index}": bits for index, bits in enumerate(draws)}}
    with jax.enable_x64(True), np.errstate(all="ignore"):
        results = evaluate(program.jaxpr, [named[name] for name in program.inputs])
    return {f"{prefix}{name}": value for name, value in zip(program.outputs, results, strict=True)}


def open_trial(workshop: Workshop, backend: str, fresh: bool, lifted: bool = True) -> Trial:
    """Trace one port for a trial, with the probes of a run.

    Args:
        workshop: the case.
        backend: the port.
        fresh: with leaves as freshly initialised and a batch of ones.
        lifted: in float64, else in the port's own precision.

    Raises:
        EquivError: it cannot be traced so.
    """
    if problem := workshop.problems.get(backend):
        raise problem
    traced = trace_port(workshop, backend)
    programs = lift_port(traced) if lifted else traced.programs
    if isinstance(programs, str):
        raise PortError(f"{backend}: {programs}")
    table = workshop.built[next(iter(workshop.case.models))].table
    made = [_as_fresh(probe, table) for probe in probes(workshop, table)[:2]] if fresh else probes(workshop, table)
    if lifted:
        made = [replace(one, variables=widened(one.variables), batches=widened(one.batches)) for one in made]
    return Trial(traced, programs, workshop.case.steps, {probe.name: probe for probe in made})


def _as_fresh(probe: Probe, table: LeafTable) -> Probe:
    """Biases and means zero, scales and variances one, a batch of ones; kernels stay random."""

    def leaf(name: str, array: np.ndarray) -> np.ndarray:
        last, is_state = name.rpartition("/")[2], table[name].spec.collection == "state"
        if last.startswith(("scale", "var")):
            return np.ones_like(array)
        return np.zeros_like(array) if is_state or array.ndim < 2 or str(array.dtype) not in FLOATS else array

    return replace(
        probe,
        variables={name: leaf(name, array) for name, array in probe.variables.items()},
        batches={name: np.ones_like(array) for name, array in probe.batches.items()},
    )


def noise_of(trial: Trial) -> Noise:
    """How far the reference moves when each of its inputs moves by one ulp of their precision."""
    responses: dict[str, dict[str, float]] = {}
    dtype = "float64" if trial.programs.lifted else None
    for name, probe in trial.probes.items():
        known = responses.setdefault(name, {})
        base = everything(trial)[name]
        for seed in range(1, NUDGES + 1):
            moved = everything(replace(trial, probes={name: nudged(probe, seed, dtype)}))[name]
            for turn, outputs in base.items():
                for place, array in outputs.items():
                    if str(array.dtype) in FLOATS:
                        apart = np.abs(array.astype("float64") - moved[turn][place].astype("float64"))
                        largest = float(np.max(apart[np.isfinite(apart)], initial=0.0))
                        known[place] = max(known.get(place, 0.0), largest)
    executable = Executable(trial.programs, trial.traced.table, trial.steps, lambda _: {})
    return Noise(responses, {}, depths_of(executable))


def everything(trial: Trial) -> dict[str, Turns]:
    """Probe to what every program gives on it."""
    programs = [part for part in every(trial.programs) if part.name != "begin"]
    return {
        probe: {
            (program.name, step): outputs
            for program in programs
            if probe in trial.shows(program)
            for step, outputs in enumerate(trial.all(program, probe))
        }
        for probe in trial.probes
    }
