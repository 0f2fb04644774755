"""The headline of a run: its verdict in one sentence, with the first place where something differs."""

from collections.abc import Sequence
from dataclasses import replace

from equiv.core.grades import EQUAL_GRADES, INPUT_CONDITIONS, Verdict
from equiv.core.results import CaseResult, CheckResult, Finding, Miscompilation

DIFFERENT_TRAINING = "same function, different training"

MISCOMPILED = "same, compiled wrong"


def summarise_run(cases: Sequence[CaseResult]) -> tuple[Verdict, str]:
    """The verdict of a run and its headline: counts, and the first place where something differs."""
    verdicts = [verdict for case in cases for verdict in case.verdicts.values()]
    broken = [case for case in cases if case.problem]
    counts = {word: verdicts.count(word) for word in ("same", "different", "inconclusive", "error")}
    compared = f"{_count(len(verdicts), 'comparison')} of {_count(len(cases), 'case')}"
    if words := describe_miscompilations(cases):
        rest = f"; {counts['different']} others differ" if counts["different"] else ""
        where = _first_reason(cases, "error")
        return "error", f"{words} here: {counts['error']} of {compared}{rest}. First: {where}"
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
    everything = compared if len(verdicts) == 1 else f"all {compared}"
    return "same", f"Same: {everything}{formula}{_conditions(cases)}."


def _count(number: int, word: str) -> str:
    """A number of things: `1 case`, `2 cases`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _conditions(cases: Sequence[CaseResult]) -> str:
    """Under which conditions on leaves of one port alone cases are the same; of several cases how many."""
    found = [case.scope.condition for case in cases if case.scope is not None and case.scope.condition]
    if len(cases) == 1 and found:
        return f", {found[0]}"
    return f"; {len(found)} where a leaf that one port lacks is held at a value" if found else ""


def find_miscompilation(case: CaseResult, candidate: str) -> Miscompilation | None:
    """The compiler's mistake that alone keeps a candidate from being the same; None where there is another reason."""
    failed = [one for check in case.checks if check.candidate == candidate for one in _failed_findings(check)]
    wrong = [one.miscompiled for one in failed if one.miscompiled is not None]
    others = {check.grade for check in case.checks if check.candidate == candidate and not _failed_findings(check)}
    return wrong[0] if wrong and len(wrong) == len(failed) and others <= set(EQUAL_GRADES) else None


def describe_miscompilations(cases: Sequence[CaseResult]) -> str:
    """Which ports the compiler gets wrong, where nothing else is an error; otherwise empty."""
    failed = [(case, who) for case in cases for who, verdict in case.verdicts.items() if verdict == "error"]
    wrong = [one for case, who in failed if (one := find_miscompilation(case, who)) is not None]
    if not wrong or len(wrong) < len(failed) or any(case.problem for case in cases):
        return ""
    ports = " and ".join(dict.fromkeys(one.port for one in wrong))
    return f"The ports are the same, but {wrong[0].compiler} compiles {ports} wrong"


def _failed_findings(check: CheckResult) -> list[Finding]:
    return [finding for finding in check.findings if finding.grade in ("refuted", "error")]


def verdict_words(case: CaseResult, candidate: str) -> str:
    """The verdict of one candidate in words; a difference in training alone, or in the compiler, is named as such."""
    verdict = case.verdicts[candidate]
    if find_miscompilation(case, candidate) is not None:
        return MISCOMPILED
    if verdict == "same" and case.scope is not None:
        held = [one for one in case.scope.held if not one.candidate and one.port in (case.reference, candidate)]
        return f"same {replace(case.scope, held=tuple(held)).condition}".strip()
    grades = {check.check: check.grade for check in case.checks if check.candidate == candidate}
    refuted = {check for check, grade in grades.items() if grade == "refuted"}
    refuted -= {check.check for check in case.checks if check.candidate == candidate and follows_training(check)}
    own = [check for check in case.checks if check.candidate == candidate]
    used = {name for check in own for item in check.findings for name in item.rewrites}
    # Proved for some inputs only: the batches of training may be the first that are none of them.
    only_training = refuted == {"train"} and used.isdisjoint(INPUT_CONDITIONS)
    return DIFFERENT_TRAINING if verdict == "different" and only_training else verdict


def follows_training(check: CheckResult) -> bool:
    """Whether all that it refutes is what trained models compute, of which another training is the cause."""
    failed = _failed_findings(check)
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
    parts += [] if finding.ratio is None else [f"{finding.ratio:.3g} x budget"]
    parts += [finding.note] if finding.miscompiled or finding.ratio is None else []
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
