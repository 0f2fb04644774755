"""Results to a verdict in one sentence, with the place."""

from collections.abc import Sequence

from equiv.core.grades import Verdict
from equiv.core.results import CaseResult, CheckResult, Finding

TRAINS_APART = "same function, different training"


def summarise(cases: Sequence[CaseResult]) -> tuple[Verdict, str]:
    """The verdict of a run and its headline: counts, and the first place where something is wrong."""
    verdicts = [verdict for case in cases for verdict in case.verdicts.values()]
    broken = [case for case in cases if case.problem]
    counts = {word: verdicts.count(word) for word in ("same", "different", "inconclusive", "error")}
    compared = f"{len(verdicts)} comparisons of {len(cases)} {'case' if len(cases) == 1 else 'cases'}"
    if broken or counts["error"]:
        where = _first(cases, "error") or f"{broken[0].name}: {broken[0].problem}"
        rest = f"; {counts['different']} differ" if counts["different"] else ""
        trouble = len(broken) + len({case.name for case in cases if "error" in case.verdicts.values()})
        return "error", f"Trouble in {trouble} of {len(cases)} cases{rest}. First: {where}"
    if counts["different"]:
        return "different", f"Not the same: {counts['different']} of {compared}. First: {_first(cases, 'different')}"
    if not verdicts:
        return "inconclusive", "Inconclusive: no case was run. Give other paths, or another -k."
    if counts["inconclusive"]:
        where = _first(cases, "inconclusive")
        return "inconclusive", f"Inconclusive: {counts['inconclusive']} of {compared}. First: {where}"
    by_formula = sum(any(check.grade == "expected" for check in case.checks) for case in cases)
    formula = f"; {by_formula} with a known difference that holds by its formula" if by_formula else ""
    return "same", f"Same: all {compared}{formula}."


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


def place_words(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    """Case, candidate, check and place; the last two are left out where a candidate as a whole could not be used."""
    who = f"{case.name}-{check.candidate}"
    return who if finding.place == check.candidate else f"{who}, {check.check}, {finding.place}"


def reason(case: CaseResult, candidate: str) -> str:
    """Why a candidate is not the same, in one line: the place, both values, and what is wrong."""
    own = [check for check in case.checks if check.candidate == candidate]
    grades = {"different": ("refuted",), "error": ("error",)}.get(case.verdicts[candidate], ())
    for check in own:
        if found := [finding for finding in check.findings if finding.grade in grades]:
            return _sentence(case, check, max(found, key=severity))
    unsure = [f": {check.check} {check.grade}, {check.summary}" for check in own if check.grade in _UNSURE]
    return f"{case.name}-{candidate}{unsure[0] if unsure else ''}"


def _sentence(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    if finding.place == check.candidate:
        return f"{case.name}: {finding.note}"  # the note begins with the candidate
    parts = [place_words(case, check, finding)]
    if finding.reference or finding.candidate:
        parts.append(f"{case.reference} {finding.reference}, {check.candidate} {finding.candidate}")
    parts.append(finding.note if finding.ratio is None else f"{finding.ratio:.3g} x budget")
    return ": ".join(part for part in parts if part)


def _first(cases: Sequence[CaseResult], verdict: Verdict) -> str:
    every = (reason(case, who) for case in cases for who, given in case.verdicts.items() if given == verdict)
    return next(every, "")


_UNSURE = ("not run", "blocked", "vacuous", "unidentifiable")
