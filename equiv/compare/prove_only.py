"""Proofs without numbers: what is equal for every input, in a fraction of the time. The rest is said to be not run."""

from equiv.compare.proofs import prove_all
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import weakest
from equiv.programs.built_case import Workshop
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import Traced, trace_port

WHY = "not proved; only proofs were asked for. Run without --prove-only."


def prove_candidates(workshop: Workshop, candidates: list[str]) -> list[CheckResult]:
    """Outputs, gradients, state and training of every candidate, by proof alone.

    Raises:
        EquivError: a port cannot be traced.
    """
    left = trace_port(workshop, next(iter(workshop.case.models)))
    proofs = prove_all(left, {name: trace_port(workshop, name) for name in candidates})
    return [check for name in candidates for check in _checks(left, name, proofs[name])]


def _checks(left: Traced, candidate: str, proofs: Proofs) -> list[CheckResult]:
    places: dict[str, list[str]] = {"outputs": [], "gradients": [], "state": [], "train": []}
    own = {leaf.name for leaf in left.table.leaves if leaf.own}
    for part in left.programs.parts:
        for output in part.outputs:
            state = output.startswith("state ")
            if state and output.removeprefix("state ") in own:
                continue
            check = "gradients" if part.name.startswith("gradient ") else "state" if state else "outputs"
            places[check].append(f"{part.name}: {output}")
    if left.programs.step is not None:
        places["train"] = [f"train: {name}" for name in left.programs.step.outputs if name not in own]
    return [_check(check, candidate, wanted, proofs) for check, wanted in places.items() if wanted]


def _check(check: str, candidate: str, places: list[str], proofs: Proofs) -> CheckResult:
    findings = []
    for place in places:
        proof = proofs.get((place, place, False))
        if proof is None:
            findings.append(Finding(place, "not run", note=WHY))
        else:
            findings.append(Finding(place, proof.grade, note="; ".join(proof.rewrites)))
    proved = sum(finding.grade != "not run" for finding in findings)
    summary = f"{proved} of {len(findings)} proved"
    return CheckResult(check, candidate, weakest(tuple(findings)), summary, tuple(findings))
