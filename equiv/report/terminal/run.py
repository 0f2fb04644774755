"""Print a run in the terminal: verdict first, then the table, then the worst finding."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from equiv.core.checks import CHECK_NAMES
from equiv.core.environment import library_distributions
from equiv.core.grades import EQUAL_GRADES
from equiv.core.headline import headline_finding, place_words, severity, verdict_reason, verdict_words
from equiv.core.results import CaseResult, CheckResult, Finding, ProbeTrial, RunResult
from equiv.core.selfcheck_results import OUTCOMES
from equiv.report.cells import (
    NOT_APPLICABLE,
    VERDICT_SIGNS,
    check_cell,
    count_trials,
    count_unrun,
    describe_conditions,
    describe_finding,
    shown_checks,
)
from equiv.report.findings.divergences import describe_place, describe_tried_causes, find_case_divergences
from equiv.report.remarks import describe_remarks
from equiv.report.scopes import describe_scopes
from equiv.report.terminal.initial_values import describe_initial_values

VERDICT_COLOURS = {"same": "green", "different": "red", "inconclusive": "yellow", "error": "magenta"}

STRUCTURE = CHECK_NAMES[0]

GRADE_COLOURS = {"refuted": "red", "error": "magenta", "": "dim", "expected": "cyan"} | dict.fromkeys(
    ("blocked", "not run", "vacuous", "unidentifiable"), "yellow"
)


def print_run(result: RunResult, console: Console, explain: bool = False) -> None:
    """Print a run; only the table is fitted to the terminal's width, a line of text stays one line in a log.

    Args:
        result: the run.
        console: the console to print to.
        explain: for every check also print the finding closest to its budget, and how that budget is derived.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for wrong in result.known_miscompilations:
        say(f"[yellow]![/] {escape(wrong)}")
    say(f"[{VERDICT_COLOURS[result.verdict]} bold]{VERDICT_SIGNS[result.verdict]} {escape(result.headline)}[/]")
    for line in _first_place_lines(result):
        say(line)
    say(f"[dim]{escape(device_and_versions(result))}[/]")
    if compared := [case for case in result.cases if case.candidates]:
        _print_check_table(compared, console)
        for remark in describe_remarks(compared):
            say(escape(remark))
        say(f"[dim]{_findings_line(result)}[/]")
        if tried := [trial for case in result.cases for trial in case.trials]:
            say(f"[dim]{_probes_line(tried)}[/]")
        say(_faults_line(compared))
        for line in describe_scopes(compared):
            say(f"[dim]{escape(line)}[/]")
        for case in compared:
            if case.initial_values:
                say(f"[dim]{escape(case.name)}: {escape(describe_initial_values(case.initial_values))}[/]")
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
    for problem in result.problems:
        say(f"[magenta]![/] {escape(problem)}")
    not_same = [(case, who) for case in result.cases for who, verdict in case.verdicts.items() if verdict != "same"]
    for case, who in not_same if len(not_same) > 1 else ():
        verdict = case.verdicts[who]
        say(f"[{VERDICT_COLOURS[verdict]}]{VERDICT_SIGNS[verdict]}[/] {escape(verdict_reason(case, who))}")
        for line in _place_lines(case, who) if (case, who) != _first_refuted(result) else ():
            say(line)
    for line in _budget_lines(result) if explain else _first_finding_lines(result):
        say(line)


def _first_place_lines(result: RunResult) -> Iterator[str]:
    """Yield where the first candidate that differs parts from the reference, and what shows more of it."""
    found = _first_refuted(result)
    if found is None:
        return
    lines = list(_place_lines(*found))
    yield from lines
    if lines:
        yield f"  [bold]next[/]  [dim]{NEXT}[/]"


NEXT = "equiv locate prints every place, equiv minimise writes a repro.py that needs jax and numpy alone"


def _first_refuted(result: RunResult) -> tuple[CaseResult, str] | None:
    """The case and candidate whose place is said below the verdict."""
    found = headline_finding(result.cases, ("refuted",))
    if found is None or headline_finding(result.cases, ("error",)):
        return None
    return found[0], found[1].candidate


def _place_lines(case: CaseResult, candidate: str) -> Iterator[str]:
    """Yield where a candidate parts from the reference, and the first cause that explains it."""
    places = find_case_divergences(case, candidate)
    for one in places[:1]:
        yield f"  [bold]where[/] {escape(describe_place(one))}"
    for cause in describe_tried_causes(places)[:1]:
        yield f"  [bold]tried[/] {escape(cause)}"


def device_and_versions(result: RunResult) -> str:
    """Return device, versions and duration in one line."""
    known = result.environment
    device = dict.fromkeys(known[name] for name in ("platform", "device") if known.get(name))
    versions = [f"{name} {known[name]}" for name in ("jax", *library_distributions(known)) if name in known]
    return " · ".join([*device, *versions, f"{result.seconds:.1f} s"])


def _print_check_table(cases: list[CaseResult], console: Console) -> None:
    """Print the table with error / budget where that fits, else without; where neither fits, print a list.

    Checks that apply to no case have no column.
    """
    names = shown_checks(cases)
    for ratio in (True, False):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("case", "candidate", *names, "verdict"):
            table.add_column(heading, no_wrap=True)
        for case in cases:
            for candidate in case.candidates:
                table.add_row(*_check_table_row(case, candidate, names, ratio))
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            console.print(table)
            return
    for case in cases:
        for candidate in case.candidates:
            name, against, *cells, verdict = _check_table_row(case, candidate, names, True)
            console.print(f"{verdict}  {name}, {against}", soft_wrap=True)
            asked = [f"{check} {text}" for check, text in zip(names, cells, strict=True) if NOT_APPLICABLE not in text]
            console.print(Padding(", ".join(asked), (0, 0, 0, 4), expand=False))


def _check_table_row(case: CaseResult, candidate: str, names: Sequence[str], ratio: bool) -> list[str]:
    row = [escape(case.name), f"{escape(candidate)} [dim]/ {escape(case.reference)}[/]"]
    for check in names:
        text, grade = check_cell(case, candidate, check, ratio)
        row.append(f"[{GRADE_COLOURS.get(grade, 'green')}]{text}[/]")
    verdict = case.verdicts[candidate]
    return [*row, f"[{VERDICT_COLOURS[verdict]}]{VERDICT_SIGNS[verdict]} {verdict_words(case, candidate)}[/]"]


def _findings_line(result: RunResult) -> str:
    findings = [finding for case in result.cases for check in case.checks for finding in check.findings]
    grades = Counter(finding.grade for finding in findings)
    counted = ", ".join(f"{count} {grade}" for grade, count in grades.items())
    leaves, left = sum(len(case.leaves) for case in result.cases), sum(case.unmapped_leaves for case in result.cases)
    notes = sum(len(case.deviations) for case in result.cases)
    return (
        f"{len(findings)} findings: {counted}; {leaves} leaves mapped, {left} left over; errata of the guides: "
        f"{notes}. A number is error / budget, 1 is the limit; {NOT_APPLICABLE} does not apply"
    )


def _probes_line(tried: list[ProbeTrial]) -> str:
    """Summarise how sensitive the probes are: changed leaves, swapped leaves and mutated proofs that they notice."""
    undetected = [escape(trial.title) for trial in tried if not trial.detected]
    unrun = f" ({count_unrun(tried)})" if count_unrun(tried) else ""
    rest = [f"not noticed: {', '.join(undetected)}"] if undetected else []
    rest += [escape(condition) for condition in describe_conditions(tried)]
    return "; ".join(
        (
            f"probes: {count_trials(tried, 'moved')} changed leaves and {count_trials(tried, 'swapped')} swapped leaf "
            f"pairs noticed{unrun}",
            f"{count_trials(tried, 'mutated proof')} proofs fail, as they should, when an equation is changed",
            *rest,
        )
    )


def _faults_line(cases: list[CaseResult]) -> str:
    """Summarise how many planted faults the checks notice."""
    tried = [case for case in cases if case.faults is not None]
    if not tried:
        return "[dim]faults: none planted; run `equiv run --selfcheck` to plant some[/]"
    found: Counter[str] = Counter()
    for case in tried:
        for row in case.faults.rows if case.faults else ():
            found.update(row.outcomes)
    rest = ", ".join(f"{found[outcome]} {outcome}" for outcome in OUTCOMES[1:])
    trouble = "".join(
        f"; {escape(case.name)}: {escape(case.faults.problem)}" for case in tried if case.faults and case.faults.problem
    )
    text = f"faults: {found['killed']} of {found.total()} mutants killed, {rest}{trouble}"
    return f"[red]✗ {text}[/]" if found["survived"] or trouble else f"[dim]{text}[/]"


def _first_finding_lines(result: RunResult) -> Iterator[str]:
    """Yield the finding to read first: an error, else a difference, else the finding closest to its budget."""
    title = "First finding"
    found = headline_finding(result.cases, ("error",)) or headline_finding(result.cases, ("refuted",))
    if found is None:
        title, found = "Closest to its budget", _closest_finding(result)
    if found is None:
        return
    yield from _finding_lines(title, *found)
    case, check, _ = found
    # Leaves of one port alone are held at a value, and what differs there too is another fault.
    rest = tuple(one for one in case.checks if one.check != STRUCTURE and one.candidate == check.candidate)
    if check.check == STRUCTURE and (other := headline_finding([replace(case, checks=rest)], ("refuted",))):
        yield from _finding_lines("First finding beyond the structure", *other)


def _finding_lines(title: str, case: CaseResult, check: CheckResult, finding: Finding) -> Iterator[str]:
    yield f"\n[bold]{title}[/]: {escape(place_words(case, check, finding))}"
    for line in describe_finding(finding, case.reference, check.candidate):
        yield f"  {escape(line)}"


def _budget_lines(result: RunResult) -> Iterator[str]:
    for case in result.cases:
        for check in case.checks:
            measured = [finding for finding in check.findings if finding.budget]
            if measured:
                finding = max(measured, key=severity)
                yield f"\n[bold]{escape(place_words(case, check, finding))}[/]"
                yield from (f"  {escape(line)}" for line in describe_finding(finding, case.reference, check.candidate))


def _closest_finding(result: RunResult) -> tuple[CaseResult, CheckResult, Finding] | None:
    every = [(case, check, item) for case in result.cases for check in case.checks for item in check.findings]
    ranked = [entry for entry in every if entry[2].ratio and entry[2].grade in EQUAL_GRADES]
    return max(ranked, key=lambda entry: severity(entry[2]), default=None)
