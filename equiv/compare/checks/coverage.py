"""Select the outputs that a check compares: all that either port returns, none left out."""

from equiv.compare.numeric.difference import compare_output
from equiv.compare.observation import Comparison, PortOutputs
from equiv.core.output_name import OutputName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade

SelectedOutputs = dict[OutputName, None]
"""Outputs in order."""


def select_compared(observed: PortOutputs, check: str) -> SelectedOutputs:
    """List the outputs of a port that a check compares, in order."""
    found: SelectedOutputs = {}
    for sample in observed.samples.values():
        found |= dict.fromkeys(output for output in sample.native if output.check == check)
    return found


def compare_all(check: str, comparison: Comparison) -> CheckResult | None:
    """Compare all selected outputs of either port; None where neither has any."""
    left, right = (select_compared(side, check) for side in (comparison.reference, comparison.candidate))
    findings = tuple(compare_either(comparison, output, left, right) for output in {**left, **right})
    if not findings:
        return None
    candidate = comparison.candidate.table.port
    return CheckResult(check, candidate, check_grade(findings), summarise_grades(findings), findings)


def compare_either(
    comparison: Comparison, output: OutputName, left: SelectedOutputs, right: SelectedOutputs
) -> Finding:
    """Compare one output, which either port may lack."""
    if output in left and output in right:
        return compare_output(comparison, output)
    lacking = comparison.candidate if output in left else comparison.reference
    return Finding(str(output), "refuted", note=f"{lacking.table.port} does not return it", output=output)


def summarise_grades(findings: tuple[Finding, ...]) -> str:
    """Count the findings of each grade."""
    grades = dict.fromkeys(finding.grade for finding in findings)
    return ", ".join(f"{sum(item.grade == grade for item in findings)} {grade}" for grade in grades)
