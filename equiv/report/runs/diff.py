"""Two runs compared: what fails anew, what is fixed, what moved, and which versions changed between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from equiv.core.grades import Verdict
from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.report.cells import shown

Kind = Literal["newly failing", "fixed", "changed", "moved", "appeared", "vanished"]


KINDS: tuple[Kind, ...] = ("newly failing", "changed", "vanished", "moved", "fixed", "appeared")
"""What asks for attention first."""


SIGNS: dict[Kind, str] = {
    "newly failing": "✗",
    "fixed": "✓",
    "changed": "?",
    "moved": "~",
    "appeared": "+",
    "vanished": "\N{MINUS SIGN}",
}
"""A sign for every kind: colour never speaks alone."""


FAILING: tuple[Verdict, ...] = ("different", "error")


FACTOR = 2
"""By how much error / budget has to move to be told."""


@dataclass(frozen=True)
class Change:
    """One comparison, or one check of it, that is not what it was.

    Attributes:
        kind: what happened to it.
        case: name of the case.
        candidate: which candidate.
        check: which check; empty where the comparison as a whole is meant.
        old: verdict, grade or error / budget before.
        new: the same now.
        place: where, for a number and for a failure.
    """

    kind: Kind
    case: str
    candidate: str
    check: str
    old: str
    new: str
    place: str = ""


@dataclass(frozen=True)
class History:
    """From an older run to a newer one.

    Attributes:
        old: when the older began.
        new: when the newer began.
        versions: setting, value before, value now: of all that is not the same.
        changes: what is not as it was, by kind.
        unchanged: how many comparisons are.
    """

    old: str
    new: str
    versions: tuple[tuple[str, str, str], ...]
    changes: tuple[Change, ...]
    unchanged: int


def history(old: RunResult, new: RunResult) -> History:
    """What changed from an older run to a newer one."""
    before, after = ({case.name: case for case in run.cases} for run in (old, new))
    changes: list[Change] = []
    unchanged = 0
    for name in dict.fromkeys((*before, *after)):
        pair = before.get(name), after.get(name)
        candidates = dict.fromkeys(who for case in pair if case for who in case.candidates)
        for candidate in candidates or ("",):
            found = list(_changes(name, candidate, *pair))
            unchanged += not found
            changes += found
    changes.sort(key=lambda change: KINDS.index(change.kind))
    return History(old.started, new.started, _versions(old, new), tuple(changes), unchanged)


def _changes(name: str, candidate: str, old: CaseResult | None, new: CaseResult | None) -> Iterator[Change]:
    before, after = _verdict(old, candidate), _verdict(new, candidate)
    if old is None or new is None or not (before and after):
        yield Change("vanished" if before else "appeared", name, candidate, "", before, after)
        return
    if before != after:
        failed, fails = before in FAILING, after in FAILING
        kind: Kind = "newly failing" if fails and not failed else "fixed" if failed and not fails else "changed"
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
        kind: Kind = "newly failing" if fails and not failed else "fixed" if failed and not fails else "changed"
        yield Change(kind, name, candidate, check, *grades)
    elif old and new and not old.grade.startswith("proved") and (moved := _moved(old, new)):
        yield Change("moved", name, candidate, check, *moved)


def _moved(old: CheckResult, new: CheckResult) -> tuple[str, str, str] | None:
    """The worst error / budget before and now, and where it is now; None where it moved by less than the factor."""
    before, after = (max(check.findings, key=severity, default=None) for check in (old, new))
    ratios = [finding.ratio if finding else None for finding in (before, after)]
    if after is None or ratios[0] is None or ratios[1] is None or not (ratios[0] > 0 < ratios[1]):
        return None
    if max(ratios[0], ratios[1]) <= FACTOR * min(ratios[0], ratios[1]):
        return None
    return shown(ratios[0]), f"{shown(ratios[1])} x budget", after.place


def _verdict(case: CaseResult | None, candidate: str) -> str:
    """Empty where the run does not have the comparison; a case that could not be used is an error for all of them."""
    if case is None:
        return ""
    return "error" if case.problem else case.verdicts.get(candidate, "")


def _first_place(case: CaseResult, candidate: str) -> str:
    """Where a candidate is refused first, with its error over budget."""
    if case.problem:
        return case.problem
    for check in case.checks:
        found = [item for item in check.findings if item.grade in ("refuted", "error")]
        if check.candidate == candidate and found:
            return _told(check, max(found, key=severity))
    return ""


def _told(check: CheckResult, finding: Finding) -> str:
    over = f", {shown(finding.ratio)} x budget" if finding.ratio is not None else ""
    return f"{check.check}, {finding.place}{over}"


def _versions(old: RunResult, new: RunResult) -> tuple[tuple[str, str, str], ...]:
    names = sorted({*old.environment, *new.environment})
    rows = [(name, old.environment.get(name, ""), new.environment.get(name, "")) for name in names]
    return tuple(row for row in rows if row[1] != row[2])
