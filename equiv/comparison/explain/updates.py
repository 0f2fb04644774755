"""Whether a difference in training is the optimizer's: the gradients of both train steps are equal, the updates not."""

from collections.abc import Set
from dataclasses import replace

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.inputs import nudged_inputs, program_inputs
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.search import align_programs
from equiv.compat import enable_x64
from equiv.core.first_difference import is_backward
from equiv.core.output_name import STEP, TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError
from equiv.programs.jaxpr import count_equations
from equiv.programs.probes import Probe
from equiv.programs.prover.first_difference import find_other_updates
from equiv.programs.prover.numbered_port import mirrored_inputs
from equiv.programs.traced_port import TracedPort, trace_program_float64

PROVED_NOTE = "the gradients of the train step are proved the same, its updates are not: the optimizers differ"

MEASURED_NOTE = "the gradients of the train step agree in float64, its updates do not: the optimizers differ"


MAX_EQUATIONS = 20_000
"""Most equations of a train step whose values are compared."""


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
    found = (item for check in checks for item in check.findings if _is_refuted_update(item, params))
    refuted = {item.output for item in found if item.output is not None}
    programs = [side.programs.step for side in (reference, candidate)]
    if not refuted or programs[0] is None or programs[1] is None:
        return checks
    proved = find_other_updates(programs[0], programs[1], mirrored_inputs(reference.table))
    others = {name.of(TRAINING) for name in proved}
    if refuted & others:
        return [_blame_optimizer(check, refuted & others, PROVED_NOTE) for check in checks]
    if _agree_up_to_the_update(reference, candidate, refuted, probe, steps):
        return [_blame_optimizer(check, refuted, MEASURED_NOTE) for check in checks]
    return checks


def _is_refuted_update(finding: Finding, params: Set[str]) -> bool:
    """Whether it is a parameter after a train step, or a slot of the optimizer, that is refuted by its numbers."""
    output = finding.output
    if output is None or output.program != TRAINING or finding.grade != "refuted" or finding.error is None:
        return False
    return output.kind == "optimizer" or (output.kind == "leaf" and output.leaf in params)


def _blame_optimizer(check: CheckResult, blamed: Set[OutputName], note: str) -> CheckResult:
    if not any(item.output in blamed for item in check.findings):
        return check
    findings = tuple(replace(item, note=note) if item.output in blamed else item for item in check.findings)
    return replace(check, findings=findings, remarks=(*check.remarks, note))


def _agree_up_to_the_update(
    left: TracedPort, right: TracedPort, refuted: Set[OutputName], probe: Probe, steps: int
) -> bool:
    """Whether no chain of differing values leads from an update back into the backward pass of either port."""
    ports = left, right
    with enable_x64(True):
        try:
            pair = trace_program_float64(left, STEP), trace_program_float64(right, STEP)
            if max(count_equations(step.jaxpr) for step in pair) > MAX_EQUATIONS:
                return False
            inputs, nudged = (function(pair, ports, probe, steps) for function in (program_inputs, nudged_inputs))
            names = left.port.name, right.port.name
            outputs = tuple(name.of(STEP) for name in refuted)
            found = align_programs(ProgramRuns(*pair, names, [inputs], [nudged], outputs))
        except EquivError:
            return False  # the note of its grade says why there is no float64 run
    return found is not None and all(_updates_alone(side) for side in (found.reference, found.candidate))


def _updates_alone(side: AlignedSide) -> bool:
    """Whether a program has a backward pass, and no value of it differs for good."""
    backward = [one for one in side.recording.operations if is_backward(str(one.eqn.source_info.name_stack))]
    return bool(backward) and all(side.lost.isdisjoint(one.outs) for one in backward)
