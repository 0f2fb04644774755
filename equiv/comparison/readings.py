"""Say which findings hold only where constants are read otherwise, which tables are not equal in both ports, and what
of a frozen reference is not measured.

See `equiv.comparison.numeric.constant_readings` and `own_rounding`.
"""

from collections.abc import Sequence
from dataclasses import replace

from equiv.comparison.checks.coverage import summarise_grades
from equiv.comparison.numeric.read_port import Ports
from equiv.comparison.numeric.table_differences import find_table_difference
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import STEP, TRAINING
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade

NUMERIC_GRADES = ("exact", "float64", "rounding")
"""Grades of equality by numbers."""


def add_readings(before: Sequence[CheckResult], after: Sequence[CheckResult], note: str) -> list[CheckResult]:
    """Put findings that hold only where constants are read otherwise in the place of the refuted ones, and say so.

    Args:
        before: checks with constants as they are.
        after: the same checks with constants read otherwise.
        note: how they were read; a remark of the first check that needs it.
    """
    results: list[CheckResult] = []
    told = False
    for as_it_is, read in zip(before, after, strict=True):
        findings = tuple(_choose(*pair, note) for pair in zip(as_it_is.findings, read.findings, strict=True))
        if findings == as_it_is.findings:
            results.append(as_it_is)
            continue
        counted = as_it_is.summary == summarise_grades(as_it_is.findings)
        results.append(
            replace(
                as_it_is,
                grade=check_grade(findings),
                summary=summarise_grades(findings) if counted else as_it_is.summary,
                findings=findings,
                remarks=as_it_is.remarks if told else (*as_it_is.remarks, note),
            )
        )
        told = True
    return results


def _choose(before: Finding, after: Finding, note: str) -> Finding:
    if before.grade in EQUAL_GRADES or after.grade not in EQUAL_GRADES:
        return before
    # A difference that a formula of the case explains stays one.
    grade = "rounding" if after.grade in NUMERIC_GRADES else after.grade
    return replace(after, grade=grade, note="; ".join(filter(None, (note, after.note))))


def name_tables(checks: Sequence[CheckResult], ports: Ports) -> list[CheckResult]:
    """Say as a remark of the first refused check which tables of constants both ports have, and that are not equal."""
    outputs = [one.output for check in checks for one in check.findings if one.grade == "refuted"]
    names = {STEP if one.program == TRAINING or one.after_training else one.program for one in outputs if one}
    found = find_table_difference(ports, frozenset(names)) if names else None
    return list(checks) if found is None else add_to_first_refused(checks, found.text)


def add_to_first_refused(checks: Sequence[CheckResult], remark: str) -> list[CheckResult]:
    """Add a remark to the first check with the grade `refuted`."""
    first = next((check for check in checks if check.grade == "refuted"), None)
    return [replace(check, remarks=(*check.remarks, remark)) if check is first else check for check in checks]


FROZEN_LIMIT = (
    "the reference is frozen: what its own operations round, and what its constants stand for, was not measured; where "
    "that could explain the difference, compare with the reference itself"
)


def name_frozen_limit(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """Say as a remark of the first refused check what could not be measured of a frozen reference."""
    return add_to_first_refused(checks, FROZEN_LIMIT)
