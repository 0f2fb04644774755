"""Check by proof alone, in a fraction of the time. What is not proved gets the grade `not run`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from equiv.comparison.numeric.run_port import train_step_kind
from equiv.comparison.state import CaseState
from equiv.comparison.training import (
    TrainStepKinds,
    describe_idle_slots,
    describe_train_step,
    find_idle_slots,
    is_training_shared,
    lone_step_findings,
)
from equiv.core.leaves import one_sided_leaves
from equiv.core.output_name import TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.programs.program import Programs
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.prover.proof import FLOAT64_CASTS, Proofs
from equiv.programs.range_limits import narrow_ranges
from equiv.programs.traced_port import TracedPort

NOT_PROVED_NOTE = "not proved, and nothing is run with --prove-only. Run without it."

RANGE_NOTE = "proved but for the range of {}, which nothing tries with --prove-only. Run without it."


def check_by_proof(state: CaseState) -> CaseState:
    """Check outputs, gradients, state and training of every candidate by proof alone."""
    found = [check for name in state.candidates for check in _proved_checks(state, name)]
    return replace(state, checks=(*state.checks, *found))


def _proved_checks(state: CaseState, candidate: str) -> Iterator[CheckResult]:
    left, right, proofs = state.traced[state.reference], state.traced[candidate], state.proofs[candidate]
    wanted: dict[str, list[OutputName]] = {"outputs": [], "gradients": [], "state": []}
    own, limits = one_sided_leaves(left.table, right.table), _narrow_dtypes(left, right)
    alone = _lone_gradients(left, right)
    for part in left.programs.parts:
        for output in part.outputs if part.name not in alone else ():
            if not (output.is_leaf and output.leaf in own):
                wanted[output.check].append(output)
    for check, outputs in wanted.items():
        lone = tuple(alone.values()) if check == "gradients" else ()
        if outputs or lone:
            yield _proved_check(check, candidate, outputs, proofs, limits, lone)
    if training := _training_check(state, candidate):
        yield training


def _lone_gradients(left: TracedPort, right: TracedPort) -> dict[ProgramName, Finding]:
    """The gradients that one port alone has, each with what is found of it."""
    found: dict[ProgramName, Finding] = {}
    for side, other in ((left, right), (right, left)):
        has = {part.name for part in other.programs.parts}
        for one in side.programs.no_gradients:
            if one.program in has:
                note = f"{side.port.name} has no such gradient: {one.reason}"
                found[one.program] = Finding(str(one.program), "refuted", note=note)
    return found


def _narrow_dtypes(*ports: TracedPort) -> list[str]:
    """The dtypes in which ports compute whose range is narrower than that of float32."""
    parts = (part for port in ports for part in all_programs(port.programs))
    return sorted({one.dtype for part in parts for one in narrow_ranges(part)})


def _training_check(state: CaseState, candidate: str) -> CheckResult | None:
    left, right = state.traced[state.reference], state.traced[candidate]
    ports = (left.port.name, candidate)
    kinds: TrainStepKinds = (train_step_kind(left.port), train_step_kind(right.port))
    lone, remarks = lone_step_findings(ports, kinds), describe_train_step(state.built_case.case, kinds)
    outputs: list[OutputName] = []
    if is_training_shared(kinds) and left.programs.step is not None and right.programs.step is not None:
        own, idle = one_sided_leaves(left.table, right.table), find_idle_slots(state, candidate)
        for output in left.programs.step.outputs:
            if not (output.is_leaf and output.leaf in own) and output.of(TRAINING) not in idle:
                outputs.append(output.of(TRAINING))
        remarks += describe_idle_slots(ports, _without_counts(idle, (left.programs, right.programs)))
    if not outputs and not lone:
        return None
    found = _proved_check("train", candidate, outputs, state.proofs[candidate], _narrow_dtypes(left, right))
    findings = (*lone, *found.findings)
    summary = lone[0].note if lone else found.summary
    return replace(found, grade=check_grade(findings), summary=summary, findings=findings, remarks=remarks)


def _without_counts(idle: Mapping[OutputName, str], sides: tuple[Programs, Programs]) -> dict[OutputName, str]:
    """The slots that are no counts of steps, which libraries keep or do not, as they like."""
    steps = [side.step for side in sides if side.step is not None]
    dtypes = {
        name.of(TRAINING): aval.dtype
        for step in steps
        for name, aval in zip(step.outputs, step.jaxpr.out_avals, strict=True)
    }
    return {name: port for name, port in idle.items() if not np.issubdtype(dtypes[name], np.integer)}


def _proved_check(
    check: str,
    candidate: str,
    outputs: list[OutputName],
    proofs: Proofs,
    limits: Sequence[str],
    lone: tuple[Finding, ...] = (),
) -> CheckResult:
    findings = [*lone]
    for output in outputs:
        proof = proofs.get((output, output, False))
        if proof is None:
            findings.append(Finding(str(output), "not run", note=NOT_PROVED_NOTE, output=output))
        elif FLOAT64_CASTS in proof.rewrites and limits:
            note = RANGE_NOTE.format(" and ".join(limits))
            findings.append(Finding(str(output), "not run", note=note, rewrites=proof.rewrites, output=output))
        else:
            findings.append(Finding(str(output), proof.grade, rewrites=proof.rewrites, output=output))
    proved = sum(finding.grade not in ("not run", "refuted") for finding in findings)
    summary = f"{proved} of {len(findings)} proved"
    return CheckResult(check, candidate, check_grade(tuple(findings)), summary, tuple(findings))
