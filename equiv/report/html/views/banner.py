"""The banner: the verdict with counts, the first divergence, which port is likely wrong, and what was not run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equiv.core.checks import COMPARING_CHECKS
from equiv.core.grades import EQUAL_GRADES, Verdict
from equiv.core.headline import describe_miscompilations, severity, summarise_run, verdict_reason, verdict_words
from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.report.cells import VERDICT_SIGNS, format_ratio
from equiv.report.findings.divergences import describe_place, find_case_divergences
from equiv.report.findings.possible_causes import (
    describe_first_lost_value,
    describe_side,
    failed_findings,
    possible_causes,
    tried_causes,
)
from equiv.report.html.anchors import anchor
from equiv.report.remarks import describe_remarks
from equiv.report.runs.merge import MergedCase, MergedRuns, platform_of
from equiv.report.scopes import describe_scopes

PLATFORMS = ("cpu", "gpu", "tpu")
"""JAX platform names that a run can select."""


@dataclass(frozen=True)
class Fact:
    """One line of the banner: a term, its text, and a link to the details."""

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


def count_verdicts(merged: MergedRuns) -> Counter[str]:
    """Count comparisons by verdict; `not run`: with a check not run; `broken`: unusable cases."""
    found: Counter[str] = Counter()
    for entry in merged.entries:
        found["broken"] += bool(entry.case.problem)
        for candidate, verdict in entry.case.verdicts.items():
            grades = {check.grade for check in entry.case.checks if check.candidate == candidate}
            found["not run" if verdict == "inconclusive" and "not run" in grades else verdict] += 1
            found["all"] += 1
    return found


def build_banner(merged: MergedRuns, ranked: Sequence[MergedCase]) -> Banner:
    """Build the banner of all runs together.

    Args:
        merged: the runs.
        ranked: their cases, the worst first.
    """
    verdict, _ = summarise_run(merged.cases)
    found = count_verdicts(merged)
    scopes = [Fact("Scope", line) for line in dict.fromkeys(describe_scopes([entry.case for entry in ranked]))]
    wrong = dict.fromkeys(one for run in merged.runs for one in run.known_miscompilations)
    compiler = [Fact("Compiler", one) for one in wrong]
    facts = [
        *compiler,
        *_facts(verdict, ranked),
        *_remark_facts(merged),
        *scopes,
        Fact("Not run", _not_run_text(merged, found)),
    ]
    return Banner(verdict, VERDICT_SIGNS[verdict], verdict_sentence(verdict, merged, found), tuple(facts))


def verdict_sentence(verdict: Verdict, merged: MergedRuns, found: Counter[str]) -> str:
    """Return the verdict as a sentence, with every count above zero, and always the count of what was not run."""
    of = count_noun(found["all"], "comparison")
    rest = [f"{found['not run']} not run"]
    rest += [f"{found[word]} {word}" for word in ("inconclusive", "different") if found[word] and word != verdict]
    rest += [f"{found['same']} the same"] if found["same"] and verdict != "same" else []
    text = f" {', '.join(reversed(rest))}."
    if verdict == "same":
        cases = count_noun(len({entry.case.name for entry in merged.entries}), "case")
        return f"The same: all {of} of {cases}.{text}"
    if verdict == "different":
        return f"Not the same: {found['different']} of {of} {'differs' if found['different'] == 1 else 'differ'}.{text}"
    if verdict == "error" and (words := describe_miscompilations(merged.cases)):
        return f"{words} here.{text}"
    if verdict == "error":
        errors = [f"{count_noun(found['broken'], 'case')} could not be used"] if found["broken"] else []
        errors += [f"{found['error']} of {of} failed"] if found["error"] else []
        return f"Error: {' and '.join(errors)}.{text}"
    if not found["all"]:
        return "Nothing was compared: no case was run."
    open_ = found["inconclusive"] + found["not run"]
    return f"Inconclusive: {open_} of {of} {'has' if open_ == 1 else 'have'} no verdict.{text}"


def count_noun(count: int, word: str) -> str:
    """Format a count with its noun: `1 case`, `2 cases`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _facts(verdict: Verdict, ranked: Sequence[MergedCase]) -> Iterator[Fact]:
    if verdict == "same":
        yield from _equality_facts(ranked)
        return
    given = [
        (entry.case.verdicts.get(who, "error"), entry, who)
        for entry in ranked
        for who in entry.case.candidates or ("",)
    ]
    for wanted, term in (
        ("error", "First error"),
        ("different", "First divergence"),
        *((("inconclusive", "First inconclusive result"),) if verdict == "inconclusive" else ()),
    ):
        for _, entry, who in [one for one in given if one[0] == wanted][:1]:
            yield from _divergence_facts(entry, who) if wanted == "different" else (_reason_fact(term, entry, who),)


def _reason_fact(term: str, entry: MergedCase, candidate: str) -> Fact:
    case = entry.case
    if case.problem:
        return Fact(term, f": {case.problem}", anchor(entry), case.name)
    return Fact(term, f": {verdict_reason(case, candidate)}", anchor(entry, candidate), f"{case.name}-{candidate}")


def _divergence_facts(entry: MergedCase, candidate: str) -> Iterator[Fact]:
    """Yield where a candidate first differs, which port is likely wrong, the causes, and what is still equal."""
    case = entry.case
    found = failed_findings(case, candidate)
    if not found:
        yield _reason_fact("First divergence", entry, candidate)
        return
    check, finding = found[0]
    text = _divergence_text(case.reference, check, finding)
    yield Fact("First divergence", text, anchor(entry, candidate), f"{case.name}-{candidate}")
    yield Fact("Likely wrong", describe_side(case, check, finding))
    yield from _cause_facts(case, candidate)
    if words := _still_equal(entry, candidate, check):
        yield Fact("Still equal", words)
    if (verdict := verdict_words(case, candidate)) != "different":
        yield Fact("Verdict", verdict)


def _cause_facts(case: CaseResult, candidate: str) -> Iterator[Fact]:
    """Yield where the values part, and the causes: those that were tried, else those that are possible."""
    places = map(describe_place, find_case_divergences(case, candidate)[:MAX_PLACES])
    tried = tried_causes(case, candidate)
    possible = () if tried else possible_causes(case, candidate)
    for term, texts in (("Where", places), ("Tried cause", tried), ("Possible cause", possible)):
        for number, text in enumerate(texts):
            yield Fact("" if number else term, text)
    if words := describe_first_lost_value(case, candidate):
        yield Fact("Along the network", words)


MAX_PLACES = 3
"""Most places that are listed for one candidate."""


def _divergence_text(reference: str, check: CheckResult, finding: Finding) -> str:
    over = f", {format_ratio(finding.ratio)} \N{MULTIPLICATION SIGN} its budget" if finding.ratio is not None else ""
    values = ""
    if finding.reference or finding.candidate:
        at = f" at {list(finding.index)}" if finding.index else ""
        values = (
            f": {reference} {finding.reference or 'nothing'}, {check.candidate} {finding.candidate or 'nothing'}{at}"
        )
    elif finding.note:
        values = f": {finding.note}"
    return f", {check.check}, at {finding.place}{values}{over}"


def _still_equal(entry: MergedCase, candidate: str, broken: CheckResult) -> str:
    """Return the checks, and the places of the failed check, that are equal."""
    mine = {check.check: check for check in entry.case.checks if check.candidate == candidate}
    equal = [name for name in COMPARING_CHECKS if name in mine and mine[name].grade in EQUAL_GRADES]
    within = [
        finding.place for check in (mine[broken.check],) for finding in check.findings if finding.grade in EQUAL_GRADES
    ]
    parts = [", ".join(equal)] if equal else []
    if within:
        named = within if len(within) < 4 else [*within[:3], f"{len(within) - 3} more"]
        parts.append(f"in {broken.check}: {', '.join(named)}")
    return "; ".join(parts)


def _equality_facts(ranked: Sequence[MergedCase]) -> Iterator[Fact]:
    """Yield facts for a run where all is the same: the evidence, the closest to its budget, and known differences."""
    findings = [(entry, check, item) for entry in ranked for check in entry.case.checks for item in check.findings]
    grades = Counter(item.grade for _, _, item in findings)
    text = ", ".join(f"{grades[grade]} {grade}" for grade in EQUAL_GRADES if grades[grade])
    yield Fact("Evidence", f"{len(findings)} findings: {text}")
    measured = [
        one
        for one in findings
        if one[2].ratio and one[2].grade in EQUAL_GRADES and not one[2].grade.startswith("proved")
    ]
    if measured:
        entry, check, item = max(measured, key=lambda one: severity(one[2]))
        text = f", {check.check}, {item.place}: {format_ratio(item.ratio or 0)} \N{MULTIPLICATION SIGN} its budget"
        yield Fact(
            "Closest to its budget", text, anchor(entry, check.candidate), f"{entry.case.name}-{check.candidate}"
        )
    formula = [entry for entry in ranked if any(check.grade == "expected" for check in entry.case.checks)]
    if formula:
        names = ", ".join(dict.fromkeys(entry.case.name for entry in formula))
        yield Fact("Known differences", f"differ exactly as the case declares: {names}")


def _remark_facts(merged: MergedRuns) -> Iterator[Fact]:
    for number, remark in enumerate(describe_remarks(merged.cases)):
        yield Fact("" if number else "Remarks", remark)


def _not_run_text(merged: MergedRuns, found: Counter[str]) -> str:
    there = {platform_of(run) for run in merged.runs}
    absent = [name for name in PLATFORMS if name not in there]
    checks = sum(check.grade == "not run" for entry in merged.entries for check in entry.case.checks)
    parts = [f"platforms {', '.join(absent)}"] if absent else []
    parts += [count_noun(found["not run"], "comparison")] if found["not run"] else []
    parts += [count_noun(checks, "check")] if checks else []
    without = sorted(
        {entry.case.name for entry in merged.entries if entry.case.faults is None and not entry.case.problem}
    )
    parts += (
        ["planted faults" if len(without) == len(merged.entries) else f"planted faults in {', '.join(without)}"]
        if without
        else []
    )
    parts += [] if any(entry.case.costs for entry in merged.entries) else ["timings"]
    return "; ".join(parts) if parts else "nothing was skipped"
