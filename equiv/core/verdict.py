"""From findings to the grade of a check, from checks to a verdict, from a verdict to an exit code."""

from collections.abc import Sequence

from equiv.core.grades import EQUAL_GRADES, GRADE_PRIORITY, Grade, Verdict
from equiv.core.results import CheckResult, Finding


def check_grade(findings: tuple[Finding, ...]) -> Grade:
    """The grade of a check: any refusal first, else the weakest grade of its findings."""
    grades: list[Grade] = [finding.grade for finding in findings]
    return min(grades, key=GRADE_PRIORITY.index) if grades else "vacuous"


def verdict_of(checks: tuple[CheckResult, ...]) -> Verdict:
    """The verdict of a candidate; `same` only if the grade of every check means equal."""
    grades = {check.grade for check in checks}
    if "error" in grades:
        return "error"
    if "refuted" in grades:
        return "different"
    return "same" if grades and grades <= set(EQUAL_GRADES) else "inconclusive"


def verdict_exit_code(verdict: Verdict) -> int:
    """The exit code, as that of `diff`: 0 same, 1 different, 2 error; and 3 inconclusive."""
    return {"same": 0, "different": 1, "error": 2, "inconclusive": 3}[verdict]


def worst_exit_code(verdicts: Sequence[Verdict]) -> int:
    """The exit code of several candidates: of an error first, then of a difference; of none, that of `inconclusive`."""
    order: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")
    return next((verdict_exit_code(one) for one in order if one in verdicts), verdict_exit_code("inconclusive"))
