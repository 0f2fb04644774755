"""Add to every unproved finding the first equations in which the two programs differ."""

from dataclasses import replace

from equiv.core.first_difference import FirstDifference
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.programs.prover.first_difference import find_first_differences
from equiv.programs.prover.numbered_port import all_programs, mirrored_inputs
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import TracedPort
from equiv.programs.transform import select_outputs


def add_first_differences(
    checks: list[CheckResult], reference: TracedPort, candidate: TracedPort, proofs: Proofs | None = None
) -> list[CheckResult]:
    """Add the first different equations of both ports to every finding by numbers.

    For the first `MAX_PLACES` outputs of a program, only equations that the output depends on are compared; for the
    others, the whole program.

    Args:
        checks: of the candidate.
        reference: the reference, traced.
        candidate: the candidate, traced.
        proofs: what is proved: of such an output that numbers do not refute, as one that was compiled otherwise, none
            is looked for; the rewrites of its proof say how the ports differ.
    """
    known: dict[tuple[ProgramName, OutputName | None], tuple[FirstDifference, ...]] = {}

    def difference_of(found: OutputName | None) -> tuple[FirstDifference, ...]:
        if found is None:
            return ()
        output = replace(found, after_training=False).of(STEP if found.program == TRAINING else found.program)
        program = output.program
        looked = sum(key[0] == program for key in known)
        key = (program, output) if looked < MAX_PLACES or (program, output) in known else (program, None)
        if key not in known:
            known[key] = _first_differences_of(*key, reference, candidate)
        return known[key]

    results = []
    for check in checks:
        findings = [
            replace(item, first_differences=difference_of(item.output))
            if item.grade in UNPROVED_GRADES and not _is_settled(item, proofs or {})
            else item
            for item in check.findings
        ]
        results.append(replace(check, findings=tuple(findings)))
    return results


MAX_PLACES = 8
"""Outputs of one program for which the first difference is searched separately."""

UNPROVED_GRADES = ("refuted", "float64", "rounding", "exact")
"""Grades by numbers; bit for bit on every probe (`exact`) is no proof either."""


def _is_settled(item: Finding, proofs: Proofs) -> bool:
    """Whether both programs are proved to be the same, which the numbers agree with."""
    return item.grade != "refuted" and (item.output, item.output, False) in proofs


def _first_differences_of(
    program: ProgramName, output: OutputName | None, reference: TracedPort, candidate: TracedPort
) -> tuple[FirstDifference, ...]:
    """Give the first differences of a program, or of the equations that one output depends on."""
    parts = [
        next((part for part in all_programs(side.programs) if part.name == program), None)
        for side in (reference, candidate)
    ]
    if parts[0] is None or parts[1] is None:
        return ()
    pair = [select_outputs(part, (output,)) if output in part.outputs else part for part in parts if part is not None]
    aliases = mirrored_inputs(reference.table)
    names = reference.port.name, candidate.port.name
    return find_first_differences(pair[0], pair[1], aliases, names)
