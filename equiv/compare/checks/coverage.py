"""Which outputs a check compares: all that either port gives, none left out."""

from collections.abc import Callable

from equiv.compare.numeric.difference import compare
from equiv.compare.observation import Comparison, Observed
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import weakest

Wanted = Callable[[str, str], bool]
"""`(program, output)` to whether the check is asked about it."""


def places(observed: Observed, wanted: Wanted) -> dict[str, None]:
    """The `program: output` names of a port that a check wants, in order."""
    found: dict[str, None] = {}
    for sample in observed.samples.values():
        found |= dict.fromkeys(place for place in sample.native if wanted(*place.split(": ", 1)))
    return found


def sweep(check: str, comparison: Comparison, wanted: Wanted) -> CheckResult | None:
    """Compare everything wanted that either port gives; None where neither gives anything."""
    left, right = places(comparison.reference, wanted), places(comparison.candidate, wanted)
    findings = tuple(one(comparison, place, left, right) for place in {**left, **right})
    if not findings:
        return None
    candidate = comparison.candidate.table.backend
    return CheckResult(check, candidate, weakest(findings), summary(findings), findings)


def one(comparison: Comparison, place: str, left: dict[str, None], right: dict[str, None]) -> Finding:
    """One place, which either port may lack."""
    if place in left and place in right:
        return compare(comparison, place)
    lacking = comparison.candidate if place in left else comparison.reference
    return Finding(place, "refuted", note=f"{lacking.table.backend} does not give it")


def summary(findings: tuple[Finding, ...]) -> str:
    """How many of each grade."""
    grades = dict.fromkeys(finding.grade for finding in findings)
    return ", ".join(f"{sum(item.grade == grade for item in findings)} {grade}" for grade in grades)
