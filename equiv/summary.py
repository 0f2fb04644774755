"""Results to a verdict in one sentence, with the place."""

from collections.abc import Sequence

from equiv.results import CaseResult, CheckResult, Finding, Verdict

TRAINS_APART = "same function, different training"


def summarise(cases: Sequence[CaseResult]) -> tuple[Verdict, str]:
    """The verdict of a run and its headline: counts, and the first place where something is wrong."""
    verdicts = [verdict for case in cases for verdict in case.verdicts.values()]
    broken = [case for case in cases if case.problem]
    counts = {word: verdicts.count(word) for word in ("same", "different", "inconclusive", "error")}
    compared = f"{len(verdicts)} comparisons of {len(cases)} cases"
    if broken or counts["error"]:
        where = _first(cases, "error") or f"{broken[0].name}: {broken[0].problem}"
        rest = f"; {counts['different']} differ" if counts["different"] else ""
        trouble = len(broken) + len({case.name for case in cases if "error" in case.verdicts.values()})
        return "error", f"Trouble in {trouble} of {len(cases)} cases{rest}. First: {where}"
    if counts["different"]:
        return "different", f"Not the same: {counts['different']} of {compared}. First: {_first(cases, 'different')}"
    if counts["inconclusive"] or not verdicts:
        where = _first(cases, "inconclusive") or "no case was run"
        return "inconclusive", f"Inconclusive: {counts['inconclusive']} of {compared}. First: {where}"
    by_formula = sum(any(check.grade == "expected" for check in case.checks) for case in cases)
    formula = f"; {by_formula} with a known difference that holds by its formula" if by_formula else ""
    return "same", f"Same: all {compared}{formula}."


def exit_code(verdict: Verdict) -> int:
    """As `diff(1)`: 0 same, 1 different, 2 trouble, 3 inconclusive."""
    return {"same": 0, "different": 1, "error": 2, "inconclusive": 3}[verdict]


def verdict_words(case: CaseResult, candidate: str) -> str:
    """The verdict of one candidate in words; training apart from the function."""
    verdict = case.verdicts[candidate]
    grades = {check.check: check.grade for check in case.checks if check.candidate == candidate}
    refuted = {check for check, grade in grades.items() if grade == "refuted"}
    return TRAINS_APART if verdict == "different" and refuted == {"train"} else verdict


def worst_finding(
    cases: Sequence[CaseResult], grades: tuple[str, ...]
) -> tuple[CaseResult, CheckResult, Finding] | None:
    """The first finding of the first check with such a grade, in the order of the checks; there the largest ratio."""
    for case in cases:
        for check in case.checks:
            if check.grade not in grades:
                continue
            found = [finding for finding in check.findings if finding.grade in grades]
            if found:
                return case, check, max(found, key=severity)
    return None


def severity(finding: Finding) -> float:
    """For sorting: a difference without a ratio (shape, dtype, missing) is worse than any number."""
    if finding.grade in ("refuted", "error") and finding.ratio is None:
        return float("inf")
    return finding.ratio or 0.0


def _first(cases: Sequence[CaseResult], verdict: Verdict) -> str:
    grades = {"different": ("refuted",), "error": ("error",), "inconclusive": ()}[verdict]
    if found := worst_finding(cases, grades):
        case, check, finding = found
        ratio = f", {finding.ratio:.3g} x budget" if finding.ratio is not None else ""
        note = "" if ratio else f": {finding.note}"
        return f"{case.name}-{check.candidate}, {check.check}, {finding.place}{ratio}{note}"
    for case in cases:
        for candidate, given in case.verdicts.items():
            if given == verdict:
                reasons = [check for check in case.checks if check.candidate == candidate and check.grade in _UNSURE]
                reason = f": {reasons[0].check} {reasons[0].grade}, {reasons[0].summary}" if reasons else ""
                return f"{case.name}-{candidate}{reason}"
    return ""


_UNSURE = ("not run", "blocked", "vacuous", "unidentifiable")
