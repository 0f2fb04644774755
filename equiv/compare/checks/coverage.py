"""Select the outputs that a check compares: all that either port returns, none left out."""

from collections.abc import Callable

from equiv.compare.numeric.difference import compare_output
from equiv.compare.observation import Comparison, PortOutputs
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade

OutputFilter = Callable[[str, str], bool]
"""`(program, output)` to whether the check compares it."""


def select_places(observed: PortOutputs, wanted: OutputFilter) -> dict[str, None]:
    """List the `program: output` names of a port that a check compares, in order."""
    found: dict[str, None] = {}
    for sample in observed.samples.values():
        found |= dict.fromkeys(place for place in sample.native if wanted(*place.split(": ", 1)))
    return found


def compare_all(check: str, comparison: Comparison, wanted: OutputFilter) -> CheckResult | None:
    """Compare all selected outputs of either port; None where neither has any."""
    left, right = select_places(comparison.reference, wanted), select_places(comparison.candidate, wanted)
    findings = tuple(compare_place(comparison, place, left, right) for place in {**left, **right})
    if not findings:
        return None
    candidate = comparison.candidate.table.backend
    return CheckResult(check, candidate, check_grade(findings), summarise_grades(findings), findings)


def compare_place(comparison: Comparison, place: str, left: dict[str, None], right: dict[str, None]) -> Finding:
    """Compare one output, which either port may lack."""
    if place in left and place in right:
        return compare_output(comparison, place)
    lacking = comparison.candidate if place in left else comparison.reference
    return Finding(place, "refuted", note=f"{lacking.table.backend} does not return it")


def summarise_grades(findings: tuple[Finding, ...]) -> str:
    """Count the findings of each grade."""
    grades = dict.fromkeys(finding.grade for finding in findings)
    return ", ".join(f"{sum(item.grade == grade for item in findings)} {grade}" for grade in grades)
