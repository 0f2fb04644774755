"""Compare two runs: new failures, fixes, changed error / budget, and changed package versions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from equiv.core.grades import Verdict
from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.report.cells import format_ratio

ChangeKind = Literal["newly failing", "fixed", "changed", "moved", "appeared", "vanished"]

CHANGE_KINDS: tuple[ChangeKind, ...] = ("newly failing", "changed", "vanished", "moved", "fixed", "appeared")
"""Most urgent first."""

CHANGE_SIGNS: dict[ChangeKind, str] = {
    "newly failing": "✗",
    "fixed": "✓",
    "changed": "?",
    "moved": "~",
    "appeared": "+",
    "vanished": "\N{MINUS SIGN}",
}
"""A sign for every kind, so that no meaning depends on colour alone."""

FAILING_VERDICTS: tuple[Verdict, ...] = ("different", "error")

REPORTED_FACTOR = 2
"""Factor by which error / budget must change to be reported."""


@dataclass(frozen=True)
class Change:
    """One changed comparison, or one changed check of it.

    Attributes:
        kind: what happened to it.
        case: name of the case.
        candidate: which candidate.
        check: which check; empty for the comparison as a whole.
        old: verdict, grade or error / budget before.
        new: the same in the newer run.
        place: where, for a number and for a failure.
    """

    kind: ChangeKind
    case: str
    candidate: str
    check: str
    old: str
    new: str
    place: str = ""


@dataclass(frozen=True)
class RunDiff:
    """What changed from an older run to a newer one.

    Attributes:
        old: start time of the older run.
        new: start time of the newer run.
        versions: setting, old value, new value, for every setting that differs.
        changes: the changes, most urgent kind first.
        unchanged: number of comparisons without a change.
    """

    old: str
    new: str
    versions: tuple[tuple[str, str, str], ...]
    changes: tuple[Change, ...]
    unchanged: int


def diff_runs(old: RunResult, new: RunResult) -> RunDiff:
    """Compare an older run with a newer one."""
    before, after = ({case.name: case for case in run.cases} for run in (old, new))
    changes: list[Change] = []
    unchanged = 0
    for name in dict.fromkeys((*before, *after)):
        pair = before.get(name), after.get(name)
        candidates = dict.fromkeys(who for case in pair if case for who in case.candidates)
        for candidate in candidates or ("",):
            found = list(_comparison_changes(name, candidate, *pair))
            unchanged += not found
            changes += found
    changes.sort(key=lambda change: CHANGE_KINDS.index(change.kind))
    return RunDiff(old.started, new.started, _changed_settings(old, new), tuple(changes), unchanged)


def _comparison_changes(name: str, candidate: str, old: CaseResult | None, new: CaseResult | None) -> Iterator[Change]:
    before, after = _verdict_or_empty(old, candidate), _verdict_or_empty(new, candidate)
    if old is None or new is None or not (before and after):
        yield Change("vanished" if before else "appeared", name, candidate, "", before, after)
        return
    if before != after:
        failed, fails = before in FAILING_VERDICTS, after in FAILING_VERDICTS
        kind: ChangeKind = "newly failing" if fails and not failed else "fixed" if failed and not fails else "changed"
        yield Change(kind, name, candidate, "", before, after, _first_place(new, candidate))
    ours, theirs = (
        {check.check: check for check in case.checks if check.candidate == candidate} for case in (old, new)
    )
    for check in dict.fromkeys((*ours, *theirs)):
        yield from _check_changes(name, candidate, check, ours.get(check), theirs.get(check))


def _check_changes(
    name: str, candidate: str, check: str, old: CheckResult | None, new: CheckResult | None
) -> Iterator[Change]:
    grades = [found.grade if found else "not asked" for found in (old, new)]
    if grades[0] != grades[1]:
        fails, failed = (grade in ("refuted", "error") for grade in reversed(grades))
        kind: ChangeKind = "newly failing" if fails and not failed else "fixed" if failed and not fails else "changed"
        yield Change(kind, name, candidate, check, *grades)
    elif old and new and not old.grade.startswith("proved") and (moved := _ratio_change(old, new)):
        yield Change("moved", name, candidate, check, *moved)


def _ratio_change(old: CheckResult, new: CheckResult) -> tuple[str, str, str] | None:
    """Return the largest error / budget before and now, and its place now; None where the change is too small."""
    before, after = (max(check.findings, key=severity, default=None) for check in (old, new))
    ratios = [finding.ratio if finding else None for finding in (before, after)]
    if after is None or ratios[0] is None or ratios[1] is None or not (ratios[0] > 0 < ratios[1]):
        return None
    if max(ratios[0], ratios[1]) <= REPORTED_FACTOR * min(ratios[0], ratios[1]):
        return None
    return format_ratio(ratios[0]), f"{format_ratio(ratios[1])} x budget", after.place


def _verdict_or_empty(case: CaseResult | None, candidate: str) -> str:
    """Return the verdict; empty where the run lacks the comparison, `error` where the case could not be used."""
    if case is None:
        return ""
    return "error" if case.problem else case.verdicts.get(candidate, "")


def _first_place(case: CaseResult, candidate: str) -> str:
    """Return the first place where a candidate fails, with its error / budget."""
    if case.problem:
        return case.problem
    for check in case.checks:
        found = [item for item in check.findings if item.grade in ("refuted", "error")]
        if check.candidate == candidate and found:
            return _place_text(check, max(found, key=severity))
    return ""


def _place_text(check: CheckResult, finding: Finding) -> str:
    over = f", {format_ratio(finding.ratio)} x budget" if finding.ratio is not None else ""
    return f"{check.check}, {finding.place}{over}"


def _changed_settings(old: RunResult, new: RunResult) -> tuple[tuple[str, str, str], ...]:
    names = sorted({*old.environment, *new.environment})
    rows = [(name, old.environment.get(name, ""), new.environment.get(name, "")) for name in names]
    return tuple(row for row in rows if row[1] != row[2])
