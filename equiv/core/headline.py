"""The headline of a run: its verdict in one sentence, with the first place where something differs."""

from collections.abc import Sequence

from equiv.core.grades import Verdict
from equiv.core.results import CaseResult, CheckResult, Finding

DIFFERENT_TRAINING = "same function, different training"


def summarise_run(cases: Sequence[CaseResult]) -> tuple[Verdict, str]:
    """The verdict of a run and its headline: counts, and the first place where something differs."""
    verdicts = [verdict for case in cases for verdict in case.verdicts.values()]
    broken = [case for case in cases if case.problem]
    counts = {word: verdicts.count(word) for word in ("same", "different", "inconclusive", "error")}
    compared = f"{len(verdicts)} comparisons of {len(cases)} {'case' if len(cases) == 1 else 'cases'}"
    if broken or counts["error"]:
        where = _first_reason(cases, "error") or f"{broken[0].name}: {broken[0].problem}"
        rest = f"; {counts['different']} differ" if counts["different"] else ""
        trouble = len(broken) + len({case.name for case in cases if "error" in case.verdicts.values()})
        return "error", f"Trouble in {trouble} of {len(cases)} cases{rest}. First: {where}"
    if counts["different"]:
        return (
            "different",
            f"Not the same: {counts['different']} of {compared}. First: {_first_reason(cases, 'different')}",
        )
    if not verdicts:
        return "inconclusive", "Inconclusive: no case was run. Give other paths, or another -k."
    if counts["inconclusive"]:
        where = _first_reason(cases, "inconclusive")
        return "inconclusive", f"Inconclusive: {counts['inconclusive']} of {compared}. First: {where}"
    by_formula = sum(any(check.grade == "expected" for check in case.checks) for case in cases)
    formula = f"; {by_formula} with a known difference that holds by its formula" if by_formula else ""
    return "same", f"Same: all {compared}{formula}."


def verdict_words(case: CaseResult, candidate: str) -> str:
    """The verdict of one candidate in words; a difference in training alone is named as such."""
    verdict = case.verdicts[candidate]
    grades = {check.check: check.grade for check in case.checks if check.candidate == candidate}
    refuted = {check for check, grade in grades.items() if grade == "refuted"}
    refuted -= {check.check for check in case.checks if check.candidate == candidate and follows_training(check)}
    return DIFFERENT_TRAINING if verdict == "different" and refuted == {"train"} else verdict


def follows_training(check: CheckResult) -> bool:
    """Whether all that it refutes is what trained models compute, of which another training is the cause."""
    failed = [finding for finding in check.findings if finding.grade in ("refuted", "error")]
    return bool(failed) and all(finding.output is not None and finding.output.after_training for finding in failed)


def causes_first(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """Sort checks so that what only follows from training comes after it; otherwise they stay as they are."""
    return sorted(checks, key=follows_training)


def headline_finding(
    cases: Sequence[CaseResult], grades: tuple[str, ...]
) -> tuple[CaseResult, CheckResult, Finding] | None:
    """The finding with the largest ratio in the first check with one of the grades, in the order of the checks."""
    for case in cases:
        for check in causes_first(case.checks):
            if check.grade not in grades:
                continue
            found = [finding for finding in check.findings if finding.grade in grades]
            if found:
                return case, check, max(found, key=severity)
    return None


def severity(finding: Finding) -> float:
    """Sort key: a difference without a ratio (shape, dtype, missing leaf) is worse than any ratio."""
    if finding.grade in ("refuted", "error") and finding.ratio is None:
        return float("inf")
    return finding.ratio or 0.0


def place_words(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    """Case, candidate, check and place; the last two are left out if the candidate as a whole could not be used."""
    name = f"{case.name}-{check.candidate}"
    return name if finding.place == check.candidate else f"{name}, {check.check}, {finding.place}"


def verdict_reason(case: CaseResult, candidate: str) -> str:
    """Why a candidate is not the same, in one line: the place, both values, and the ratio or note."""
    checks = causes_first([check for check in case.checks if check.candidate == candidate])
    grades = {"different": ("refuted",), "error": ("error",)}.get(case.verdicts[candidate], ())
    for check in checks:
        if found := [finding for finding in check.findings if finding.grade in grades]:
            return _finding_sentence(case, check, max(found, key=severity))
    undecided = [
        f": {check.check} {check.grade}, {check.summary}" for check in checks if check.grade in _UNDECIDED_GRADES
    ]
    return f"{case.name}-{candidate}{undecided[0] if undecided else ''}"


def _finding_sentence(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    if finding.place == check.candidate:
        return f"{case.name}: {finding.note}"  # the note begins with the candidate
    parts = [place_words(case, check, finding)]
    if finding.reference or finding.candidate:
        parts.append(f"{case.reference} {finding.reference}, {check.candidate} {finding.candidate}")
    parts.append(finding.note if finding.ratio is None else f"{finding.ratio:.3g} x budget")
    return ": ".join(part for part in parts if part)


def _first_reason(cases: Sequence[CaseResult], verdict: Verdict) -> str:
    reasons = (
        verdict_reason(case, candidate)
        for case in cases
        for candidate, found in case.verdicts.items()
        if found == verdict
    )
    return next(reasons, "")


_UNDECIDED_GRADES = ("not run", "blocked", "vacuous", "unidentifiable")
