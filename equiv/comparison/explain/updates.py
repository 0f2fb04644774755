"""Whether a difference in training is the optimizer's: the gradients of both train steps are equal, the updates not."""

import zlib
from collections.abc import Set
from dataclasses import replace

import numpy as np

from equiv.comparison.explain.divergence import DIVERGENCE_NUDGES, InputArrays, walk_values
from equiv.compat import enable_x64
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.output_name import BEGIN, STEP, TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError
from equiv.programs.compiled import probe_inputs
from equiv.programs.counters import find_counters
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.jaxpr import count_equations
from equiv.programs.joined_programs import part_inputs
from equiv.programs.probes import Probe, perturb_by_ulp
from equiv.programs.program import Program
from equiv.programs.prover.first_difference import find_other_updates
from equiv.programs.prover.prove import mirrored_inputs
from equiv.programs.traced_port import TracedPort, trace_program_float64

PROVED_NOTE = "the gradients of the train step are proved the same, its updates are not: the optimizers differ"

MEASURED_NOTE = "the gradients of the train step agree in float64, its updates do not: the optimizers differ"


MAX_EQUATIONS = 4000
"""Most equations of a train step whose values are compared: each with every other value of its size."""


def add_optimizer_difference(
    checks: list[CheckResult], reference: TracedPort, candidate: TracedPort, probe: Probe, steps: int
) -> list[CheckResult]:
    """Say of a refuted training that the optimizers differ, where both train steps have equal gradients.

    Args:
        checks: of one candidate.
        reference: the reference.
        candidate: the candidate.
        probe: on which gradients that are not proved are compared.
        steps: number of train steps that the probe has batches for.
    """
    params = frozenset(reference.table.names("params"))
    refuted = {item.output for check in checks for item in check.findings if _is_refuted_update(item, params)}
    programs = [side.programs.step for side in (reference, candidate)]
    if not refuted or programs[0] is None or programs[1] is None:
        return checks
    proved = find_other_updates(programs[0], programs[1], mirrored_inputs(reference.table))
    others = {name.of(TRAINING) for name in proved}
    if refuted & others:
        return [_blame_optimizer(check, refuted & others, PROVED_NOTE) for check in checks]
    if _agree_up_to_the_update(reference, candidate, probe, steps):
        return [_blame_optimizer(check, refuted, MEASURED_NOTE) for check in checks]
    return checks


def _is_refuted_update(finding: Finding, params: Set[str]) -> bool:
    """Whether it is a parameter after a train step, or a slot of the optimizer, that is refuted by its numbers."""
    output = finding.output
    if output is None or output.program != TRAINING or finding.grade != "refuted" or finding.error is None:
        return False
    return output.kind == "optimizer" or (output.kind == "leaf" and output.leaf in params)


def _blame_optimizer(check: CheckResult, blamed: Set[OutputName | None], note: str) -> CheckResult:
    if not any(item.output in blamed for item in check.findings):
        return check
    findings = tuple(replace(item, note=note) if item.output in blamed else item for item in check.findings)
    return replace(check, findings=findings, remarks=(*check.remarks, note))


def _agree_up_to_the_update(left: TracedPort, right: TracedPort, probe: Probe, steps: int) -> bool:
    """Whether a train step computes every value of the backward pass in both ports, and then other ones."""
    with enable_x64(True):
        try:
            pair = trace_program_float64(left, STEP), trace_program_float64(right, STEP)
            if max(count_equations(step.jaxpr) for step in pair) > MAX_EQUATIONS:
                return False
            inputs = _step_inputs(left, pair[0], probe, steps), _step_inputs(right, pair[1], probe, steps)
            moved = [
                _step_inputs(left, pair[0], perturb_by_ulp(probe, seed, "float64"), steps)
                for seed in range(1, DIVERGENCE_NUDGES + 1)
            ]
            points = walk_values(pair[0], pair[1], inputs, moved, whole=True)
        except EquivError:
            return False  # the note of its grade says why there is no float64 run
    backward = [point.lost for point in points if point.backward]
    return bool(backward) and not any(backward) and any(point.lost for point in points)


def _step_inputs(port: TracedPort, step: Program, probe: Probe, steps: int) -> InputArrays:
    """The inputs of a train step on a probe, in float64, with a state of the optimizer that is not zero.

    At first it is, so that two momenta, for one, make the same first step. Of a round of steps it is the last, in which
    parameters are updated.
    """
    begin = trace_program_float64(port, BEGIN)
    programs = replace(port.programs, float64=True, parts=(), begin=begin, step=step)
    inputs = probe_inputs(programs, port.table, steps, probe)
    inputs["draws"] = {name: [bits[0] for bits in drawn] for name, drawn in inputs["draws"].items()}
    given = part_inputs(step, inputs)
    carried = evaluate_eagerly(begin.jaxpr, [given[name] for name in begin.inputs])
    named = zip(begin.outputs, carried, strict=True)
    filled = {name.as_input: _fill_slot(name, array) for name, array in named if name.as_input is not None}
    counters = find_counters(programs)
    last = {} if counters is None else counters.after((counters.round - 1,))
    return given | filled | {name: counts[0] for name, counts in last.items()}


def _fill_slot(name: OutputName, array: np.ndarray) -> np.ndarray:
    """The same positive numbers for the same slot of both ports; anything else as it is."""
    if name.kind != "optimizer" or not name.leaf or str(array.dtype) not in INEXACT_DTYPES:
        return array
    rng = np.random.default_rng(zlib.crc32(str(name).encode()))
    return rng.uniform(0.3, 2.0, array.shape).astype(array.dtype)
