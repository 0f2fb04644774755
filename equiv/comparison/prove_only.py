"""Check by proof alone, in a fraction of the time. What is not proved gets the grade `not run`."""

from collections.abc import Iterator
from dataclasses import replace

from equiv.comparison.state import CaseState
from equiv.core.leaves import one_sided_leaves
from equiv.core.output_name import TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import TracedPort

NOT_PROVED_NOTE = "not proved, and nothing is run with --prove-only. Run without it."


def check_by_proof(state: CaseState) -> CaseState:
    """Check outputs, gradients, state and training of every candidate by proof alone."""
    left = state.traced[state.reference]
    found = [
        check for name in state.candidates for check in _proved_checks(left, state.traced[name], state.proofs[name])
    ]
    return replace(state, checks=(*state.checks, *found))


def _proved_checks(left: TracedPort, right: TracedPort, proofs: Proofs) -> Iterator[CheckResult]:
    wanted: dict[str, list[OutputName]] = {"outputs": [], "gradients": [], "state": [], "train": []}
    own = one_sided_leaves(left.table, right.table)
    for part in left.programs.parts:
        for output in part.outputs:
            if not (output.is_leaf and output.leaf in own):
                wanted[output.check].append(output)
    for output in left.programs.step.outputs if left.programs.step is not None else ():
        if not (output.is_leaf and output.leaf in own):
            wanted["train"].append(output.of(TRAINING))
    return (_proved_check(check, right.port.name, outputs, proofs) for check, outputs in wanted.items() if outputs)


def _proved_check(check: str, candidate: str, outputs: list[OutputName], proofs: Proofs) -> CheckResult:
    findings = []
    for output in outputs:
        proof = proofs.get((output, output, False))
        if proof is None:
            findings.append(Finding(str(output), "not run", note=NOT_PROVED_NOTE, output=output))
        else:
            findings.append(Finding(str(output), proof.grade, rewrites=proof.rewrites, output=output))
    proved = sum(finding.grade != "not run" for finding in findings)
    summary = f"{proved} of {len(findings)} proved"
    return CheckResult(check, candidate, check_grade(tuple(findings)), summary, tuple(findings))
