"""The verdict: a sentence with its counts, the place, the side, the likely cause, and what was not run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equiv.core.grades import EQUAL, Verdict
from equiv.core.headline import reason, severity, summarise, verdict_words
from equiv.core.results import CHECKS, CheckResult, Finding
from equiv.report.cells import VERDICT_SIGNS, shown
from equiv.report.findings.likely_causes import causes, parting, refused, side
from equiv.report.html.anchors import anchor
from equiv.report.runs.merge import Entry, Merged, platform_of

PLATFORMS = ("cpu", "gpu", "tpu")
"""What JAX calls the devices that a run can be asked for."""


@dataclass(frozen=True)
class Fact:
    """One line of the verdict: a question, its answer, and where to read on."""

    term: str
    text: str
    link: str = ""
    place: str = ""


@dataclass(frozen=True)
class Banner:
    """The verdict: its sign, its sentence and the facts below it."""

    verdict: Verdict
    sign: str
    title: str
    facts: tuple[Fact, ...]


def counts(merged: Merged) -> Counter[str]:
    """Comparisons by verdict; `not run` are those of which a check was not run, `broken` cases without any."""
    found: Counter[str] = Counter()
    for entry in merged.entries:
        found["broken"] += bool(entry.case.problem)
        for candidate, verdict in entry.case.verdicts.items():
            grades = {check.grade for check in entry.case.checks if check.candidate == candidate}
            found["not run" if verdict == "inconclusive" and "not run" in grades else verdict] += 1
            found["all"] += 1
    return found


def banner(merged: Merged, ranked: Sequence[Entry]) -> Banner:
    """The verdict of all runs together.

    Args:
        merged: the runs.
        ranked: their entries, the worst first.
    """
    verdict, _ = summarise(merged.cases)
    found = counts(merged)
    facts = [*_facts(verdict, ranked), Fact("Not run", _not_run(merged, found))]
    return Banner(verdict, VERDICT_SIGNS[verdict], sentence(verdict, merged, found), tuple(facts))


def sentence(verdict: Verdict, merged: Merged, found: Counter[str]) -> str:
    """The verdict in a sentence, with every count that is not nothing, and in any case that of what was not run."""
    of = many(found["all"], "comparison")
    rest = [f"{found['not run']} not run"]
    rest += [f"{found[word]} {word}" for word in ("inconclusive", "different") if found[word] and word != verdict]
    rest += [f"{found['same']} the same"] if found["same"] and verdict != "same" else []
    told = f" {', '.join(reversed(rest))}."
    if verdict == "same":
        cases = many(len({entry.case.name for entry in merged.entries}), "case")
        return f"The same: all {of} of {cases}.{told}"
    if verdict == "different":
        return f"Not the same: {found['different']} of {of} {'differs' if found['different'] == 1 else 'differ'}.{told}"
    if verdict == "error":
        trouble = [f"{many(found['broken'], 'case')} could not be used"] if found["broken"] else []
        trouble += [f"{found['error']} of {of} failed"] if found["error"] else []
        return f"Trouble: {' and '.join(trouble)}.{told}"
    if not found["all"]:
        return "Nothing was compared: no case was run."
    open_ = found["inconclusive"] + found["not run"]
    return f"Not known: {open_} of {of} {'is' if open_ == 1 else 'are'} open.{told}"


def many(count: int, word: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _facts(verdict: Verdict, ranked: Sequence[Entry]) -> Iterator[Fact]:
    if verdict == "same":
        yield from _known(ranked)
        return
    given = [
        (entry.case.verdicts.get(who, "error"), entry, who)
        for entry in ranked
        for who in entry.case.candidates or ("",)
    ]
    for wanted, term in (
        ("error", "First trouble"),
        ("different", "First divergence"),
        *((("inconclusive", "First open question"),) if verdict == "inconclusive" else ()),
    ):
        for _, entry, who in [one for one in given if one[0] == wanted][:1]:
            yield from _parted(entry, who) if wanted == "different" else (_told(term, entry, who),)


def _told(term: str, entry: Entry, candidate: str) -> Fact:
    case = entry.case
    if case.problem:
        return Fact(term, f": {case.problem}", anchor(entry), case.name)
    return Fact(term, f": {reason(case, candidate)}", anchor(entry, candidate), f"{case.name}-{candidate}")


def _parted(entry: Entry, candidate: str) -> Iterator[Fact]:
    """Where a candidate differs first, which side is off, what it is likely to be, and what still holds."""
    case = entry.case
    found = refused(case, candidate)
    if not found:
        yield _told("First divergence", entry, candidate)
        return
    check, finding = found[0]
    told = _divergence(case.reference, check, finding)
    yield Fact("First divergence", told, anchor(entry, candidate), f"{case.name}-{candidate}")
    yield Fact("Which side", side(case, check, finding))
    for number, cause in enumerate(causes(case, candidate)):
        yield Fact("" if number else "Likely cause", cause)
    if words := parting(case, candidate):
        yield Fact("Along the network", words)
    if words := _before(entry, candidate, check):
        yield Fact("Still equal", words)
    if (verdict := verdict_words(case, candidate)) != "different":
        yield Fact("In words", verdict)


def _divergence(reference: str, check: CheckResult, finding: Finding) -> str:
    over = f", {shown(finding.ratio)} \N{MULTIPLICATION SIGN} its budget" if finding.ratio is not None else ""
    values = ""
    if finding.reference or finding.candidate:
        at = f" at {list(finding.index)}" if finding.index else ""
        values = (
            f": {reference} {finding.reference or 'nothing'}, {check.candidate} {finding.candidate or 'nothing'}{at}"
        )
    elif finding.note:
        values = f": {finding.note}"
    return f", {check.check}, at {finding.place}{values}{over}"


def _before(entry: Entry, candidate: str, broken: CheckResult) -> str:
    """The checks that still hold: what is below the first divergence."""
    mine = {check.check: check for check in entry.case.checks if check.candidate == candidate}
    equal = [name for name in CHECKS if name in mine and mine[name].grade in EQUAL]
    within = [finding.place for check in (mine[broken.check],) for finding in check.findings if finding.grade in EQUAL]
    parts = [", ".join(equal)] if equal else []
    if within:
        shown_places = within if len(within) < 4 else [*within[:3], f"{len(within) - 3} more"]
        parts.append(f"in {broken.check}: {', '.join(shown_places)}")
    return "; ".join(parts)


def _known(ranked: Sequence[Entry]) -> Iterator[Fact]:
    """For a run in which all is the same: how it is known, what came closest, and what differs by design."""
    findings = [(entry, check, item) for entry in ranked for check in entry.case.checks for item in check.findings]
    grades = Counter(item.grade for _, _, item in findings)
    told = ", ".join(f"{grades[grade]} {grade}" for grade in EQUAL if grades[grade])
    yield Fact("How it is known", f"{len(findings)} findings: {told}")
    measured = [
        one for one in findings if one[2].ratio and one[2].grade in EQUAL and not one[2].grade.startswith("proved")
    ]
    if measured:
        entry, check, item = max(measured, key=lambda one: severity(one[2]))
        text = f", {check.check}, {item.place}: {shown(item.ratio or 0)} \N{MULTIPLICATION SIGN} its budget"
        yield Fact(
            "Closest to its budget", text, anchor(entry, check.candidate), f"{entry.case.name}-{check.candidate}"
        )
    formula = [entry for entry in ranked if any(check.grade == "expected" for check in entry.case.checks)]
    if formula:
        names = ", ".join(dict.fromkeys(entry.case.name for entry in formula))
        yield Fact("By a formula", f"a known difference holds by its stated formula in {names}")


def _not_run(merged: Merged, found: Counter[str]) -> str:
    there = {platform_of(run) for run in merged.runs}
    absent = [name for name in PLATFORMS if name not in there]
    checks = sum(check.grade == "not run" for entry in merged.entries for check in entry.case.checks)
    parts = [f"platforms {', '.join(absent)}"] if absent else []
    parts += [many(found["not run"], "comparison")] if found["not run"] else []
    parts += [many(checks, "check")] if checks else []
    without = sorted(
        {entry.case.name for entry in merged.entries if entry.case.faults is None and not entry.case.problem}
    )
    parts += (
        ["planted faults" if len(without) == len(merged.entries) else f"planted faults in {', '.join(without)}"]
        if without
        else []
    )
    parts += [] if any(entry.case.costs for entry in merged.entries) else ["timings"]
    return "; ".join(parts) if parts else "nothing was left out"
