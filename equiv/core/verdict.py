"""Verdict."""

from equiv.core.grades import DECIDING, EQUAL, Grade, Verdict
from equiv.core.results import CheckResult, Finding


def weakest(findings: tuple[Finding, ...]) -> Grade:
    """The grade of a check: any refusal first, else the weakest equality that its leaves reach."""
    grades: list[Grade] = [finding.grade for finding in findings]
    return min(grades, key=DECIDING.index) if grades else "vacuous"


def verdict_of(checks: tuple[CheckResult, ...]) -> Verdict:
    """Same only where every check says so by name."""
    grades = {check.grade for check in checks}
    if "error" in grades:
        return "error"
    if "refuted" in grades:
        return "different"
    return "same" if grades and grades <= set(EQUAL) else "inconclusive"


def exit_code(verdict: Verdict) -> int:
    """As `diff(1)`: 0 same, 1 different, 2 trouble, 3 inconclusive."""
    return {"same": 0, "different": 1, "error": 2, "inconclusive": 3}[verdict]
