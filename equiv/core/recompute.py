"""Grades, verdicts and headline of a stored run, made again from its findings: a headline alone is not believed."""

import math
from dataclasses import replace

from equiv.core.grades import EQUAL_GRADES
from equiv.core.headline import summarise_run
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.core.verdict import check_grade, verdict_of

SAME_RATIO = 1e-6
"""Relative difference up to which a stored ratio is that of error and budget: above rounding, below what shows."""


def recompute_verdicts(run: RunResult, source: str) -> RunResult:
    """Make every grade, every verdict and the headline again from the findings; a run that agrees is returned as it is.

    Findings are believed, and of a finding its error and its budget. What was said otherwise is replaced, and told
    among the problems of the run. A verdict that is not `same` for another reason, such as a missing case, stays.

    Args:
        run: as it was read.
        source: the file, for the message.
    """
    cases = tuple(map(_recompute_case, run.cases))
    if cases == run.cases and (run.verdict != "same" or summarise_run(cases)[0] == "same"):
        return run
    verdict, headline = summarise_run(cases)
    changed = [now.name for before, now in zip(run.cases, cases, strict=True) if before != now] or ["its verdict"]
    problem = (
        f"{source}: grades or verdicts do not follow from the findings ({', '.join(changed)}); those of the findings "
        "are shown. Regenerate it with equiv run."
    )
    return replace(run, verdict=verdict, headline=headline, cases=cases, problems=(*run.problems, problem))


def _recompute_case(case: CaseResult) -> CaseResult:
    checks = tuple(map(_recompute_check, case.checks))
    candidates = () if case.problem else case.candidates
    verdicts = {name: verdict_of(tuple(one for one in checks if one.candidate == name)) for name in candidates}
    unchanged = checks == case.checks and verdicts == case.verdicts
    return case if unchanged else replace(case, checks=checks, verdicts=verdicts)


def _recompute_check(check: CheckResult) -> CheckResult:
    findings = tuple(map(_recompute_finding, check.findings))
    # Without findings a check can say why it compared nothing, but not that something is equal.
    said = "vacuous" if check.grade in EQUAL_GRADES else check.grade
    grade = check_grade(findings) if findings else said
    unchanged = findings == check.findings and grade == check.grade
    return check if unchanged else replace(check, findings=findings, grade=grade)


def _recompute_finding(finding: Finding) -> Finding:
    if finding.error is None or finding.budget is None or finding.grade not in EQUAL_GRADES:
        return finding
    ratio = finding.error / finding.budget if finding.budget > 0 else math.inf if finding.error else 0.0
    if ratio > 1:
        note = f"said to be {finding.grade}, but its error is over its budget"
        return replace(finding, grade="refuted", ratio=ratio if math.isfinite(ratio) else None, note=note)
    if finding.ratio is not None and abs(finding.ratio - ratio) > SAME_RATIO * max(ratio, finding.ratio):
        return replace(finding, ratio=ratio)
    return finding
