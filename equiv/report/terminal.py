"""A run in the terminal: verdict first, then the table, then the worst finding."""

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.report.cells import VERDICT_SIGNS, cell, values
from equiv.results import CHECKS, CaseResult, CheckResult, Finding, RunResult
from equiv.summary import severity, verdict_words, worst_finding

COLOURS = {"same": "green", "different": "red", "inconclusive": "yellow", "error": "magenta"}
GRADE_COLOURS = {"refuted": "red", "error": "magenta", "": "dim", "expected": "cyan"} | dict.fromkeys(
    ("blocked", "not run", "vacuous", "unidentifiable"), "yellow"
)


def show(result: RunResult, console: Console) -> None:
    """Print a run."""
    colour = COLOURS[result.verdict]
    console.print(f"[{colour} bold]{VERDICT_SIGNS[result.verdict]} {escape(result.headline)}[/]", highlight=False)
    console.print(f"[dim]{escape(surroundings(result))}[/]", highlight=False)
    if compared := [case for case in result.cases if case.candidates]:
        console.print(_table(compared))
        _counts(result, console)
    for case in result.cases:
        if case.problem:
            console.print(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}", highlight=False)
    for problem in result.problems:
        console.print(f"[magenta]![/] {escape(problem)}", highlight=False)
    _worst(result, console)


def surroundings(result: RunResult) -> str:
    """Device and versions in one line."""
    known = result.environment
    versions = [f"{name} {known[name]}" for name in ("jax", "flax", "dm-haiku") if name in known]
    return " · ".join([known.get("platform", ""), known.get("device", ""), *versions, f"{result.seconds:.1f} s"])


def _table(cases: list[CaseResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("case", "candidate", *CHECKS, "verdict"):
        table.add_column(heading, no_wrap=heading != "verdict")
    for case in cases:
        for candidate in case.candidates:
            row = [escape(case.name), f"{escape(candidate)} [dim]/ {escape(case.reference)}[/]"]
            for check in CHECKS:
                text, grade = cell(case, candidate, check)
                row.append(f"[{GRADE_COLOURS.get(grade, 'green')}]{text}[/]")
            verdict = case.verdicts[candidate]
            row.append(f"[{COLOURS[verdict]}]{VERDICT_SIGNS[verdict]} {verdict_words(case, candidate)}[/]")
            table.add_row(*row)
    return table


def _counts(result: RunResult, console: Console) -> None:
    findings = [finding for case in result.cases for check in case.checks for finding in check.findings]
    grades = Counter(finding.grade for finding in findings)
    counted = ", ".join(f"{count} {grade}" for grade, count in grades.items())
    leaves, left = sum(len(case.leaves) for case in result.cases), sum(case.left_over for case in result.cases)
    notes = sum(len(case.deviations) for case in result.cases)
    console.print(
        f"[dim]{len(findings)} findings: {counted}; {leaves} leaves mapped, {left} left over; "
        f"{notes} errata of the guides[/]",
        highlight=False,
    )


def _worst(result: RunResult, console: Console) -> None:
    grades = {"different": ("refuted",), "error": ("error",)}.get(result.verdict)
    title = "First finding"
    found = worst_finding(result.cases, grades) if grades else None
    if found is None:
        title, found = "Closest to its budget", _closest(result)
    if found is None:
        return
    case, check, finding = found
    console.print(
        f"\n[bold]{title}[/]: {escape(case.name)}-{escape(check.candidate)}, {check.check}, {escape(finding.place)}",
        highlight=False,
    )
    for line in values(finding, case.reference, check.candidate):
        console.print(f"  {escape(line)}", highlight=False)


def _closest(result: RunResult) -> tuple[CaseResult, CheckResult, Finding] | None:
    every = [(case, check, item) for case in result.cases for check in case.checks for item in check.findings]
    ranked = [entry for entry in every if entry[2].ratio]
    return max(ranked, key=lambda entry: severity(entry[2]), default=None)
