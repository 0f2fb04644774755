"""Select the outputs that a check compares: all that either port returns, none left out."""

from dataclasses import dataclass

from equiv.comparison.numeric.difference import compare_output
from equiv.comparison.observation import Comparison, PortOutputs
from equiv.core.output_name import OutputName
from equiv.core.results import Finding


@dataclass(frozen=True)
class CheckAnswer:
    """What a check says of a candidate.

    Attributes:
        findings: one per compared leaf, output or property.
        summary: in words; empty: the number of findings per grade.
        remarks: see `equiv.core.results.CheckResult`.
    """

    findings: tuple[Finding, ...]
    summary: str = ""
    remarks: tuple[str, ...] = ()


SelectedOutputs = dict[OutputName, None]
"""Outputs in order."""


def select_compared(observed: PortOutputs, check: str) -> SelectedOutputs:
    """List the outputs of a port that a check compares, in order."""
    found: SelectedOutputs = {}
    for sample in observed.samples.values():
        found |= dict.fromkeys(output for output in sample.native if output.check == check)
    return found


def compare_all(comparison: Comparison, check: str) -> CheckAnswer | None:
    """Compare all outputs that a check compares, of either port; None where neither has any."""
    left, right = (select_compared(side, check) for side in (comparison.reference, comparison.candidate))
    settled = settled_by_proof(comparison, check)
    findings = tuple(
        settled[output]
        if output in settled and not (output in left and output in right)
        else compare_either(comparison, output, left, right)
        for output in {**left, **right, **settled}
    )
    return CheckAnswer(findings) if findings else None


def settled_by_proof(comparison: Comparison, check: str) -> dict[OutputName, Finding]:
    """The findings of gradients in eval mode that are proved, and are not run for it."""
    return {
        output: Finding(str(output), proof.grade, rewrites=proof.rewrites, output=output)
        for (output, _, cold), proof in comparison.proofs.items()
        if not cold and output.program.kind == "eval gradient" and output.check == check
    }


def compare_either(
    comparison: Comparison, output: OutputName, left: SelectedOutputs, right: SelectedOutputs
) -> Finding:
    """Compare one output, which either port may lack."""
    if output in left and output in right:
        return compare_output(comparison, output)
    lacking = comparison.candidate if output in left else comparison.reference
    return Finding(str(output), "refuted", note=lacking.describe_lack(output), output=output)


def summarise_grades(findings: tuple[Finding, ...]) -> str:
    """Count the findings of each grade."""
    grades = dict.fromkeys(finding.grade for finding in findings)
    return ", ".join(f"{sum(item.grade == grade for item in findings)} {grade}" for grade in grades)
