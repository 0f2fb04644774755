"""A run in the terminal: verdict first, then the table, then the worst finding."""

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from equiv.core.grades import EQUAL
from equiv.core.headline import place_words, reason, severity, verdict_words, worst_finding
from equiv.core.results import CHECKS, CaseResult, CheckResult, Finding, RunResult
from equiv.core.selfcheck_results import OUTCOMES
from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS, cell, values
from equiv.report.terminal.initial_values import told

COLOURS = {"same": "green", "different": "red", "inconclusive": "yellow", "error": "magenta"}


GRADE_COLOURS = {"refuted": "red", "error": "magenta", "": "dim", "expected": "cyan"} | dict.fromkeys(
    ("blocked", "not run", "vacuous", "unidentifiable"), "yellow"
)


def show(result: RunResult, console: Console, explain: bool = False) -> None:
    """Print a run; only the table is fitted to the width, so that a line of text is one line in a log.

    Args:
        result: the run.
        console: where to.
        explain: for every check also what came closest to its budget, and where that budget comes from.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"[{COLOURS[result.verdict]} bold]{VERDICT_SIGNS[result.verdict]} {escape(result.headline)}[/]")
    say(f"[dim]{escape(surroundings(result))}[/]")
    if compared := [case for case in result.cases if case.candidates]:
        _table(compared, console)
        say(f"[dim]{_counts(result)}[/]")
        if tried := [finding for case in result.cases for finding in case.probes]:
            say(f"[dim]{_tried(tried)}[/]")
        say(_planted(compared))
        for case in compared:
            if case.starts:
                say(f"[dim]{escape(case.name)}: {escape(told(case.starts))}[/]")
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
    for problem in result.problems:
        say(f"[magenta]![/] {escape(problem)}")
    unlike = [(case, who) for case in result.cases for who, verdict in case.verdicts.items() if verdict != "same"]
    for case, who in unlike if len(unlike) > 1 else ():
        verdict = case.verdicts[who]
        say(f"[{COLOURS[verdict]}]{VERDICT_SIGNS[verdict]}[/] {escape(reason(case, who))}")
    for line in _explained(result) if explain else _worst(result):
        say(line)


def surroundings(result: RunResult) -> str:
    """Device and versions in one line."""
    known = result.environment
    device = dict.fromkeys(known[name] for name in ("platform", "device") if known.get(name))
    versions = [f"{name} {known[name]}" for name in ("jax", "flax", "dm-haiku") if name in known]
    return " · ".join([*device, *versions, f"{result.seconds:.1f} s"])


def _table(cases: list[CaseResult], console: Console) -> None:
    """With error over budget where that fits, else without; where that does not fit either, a list."""
    for ratio in (True, False):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("case", "candidate", *CHECKS, "verdict"):
            table.add_column(heading, no_wrap=True)
        for case in cases:
            for candidate in case.candidates:
                table.add_row(*_row(case, candidate, ratio))
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            console.print(table)
            return
    for case in cases:
        for candidate in case.candidates:
            name, against, *cells, verdict = _row(case, candidate, True)
            console.print(f"{verdict}  {name}, {against}", soft_wrap=True)
            asked = [f"{check} {text}" for check, text in zip(CHECKS, cells, strict=True) if NOT_ASKED not in text]
            console.print(Padding(", ".join(asked), (0, 0, 0, 4), expand=False))


def _row(case: CaseResult, candidate: str, ratio: bool) -> list[str]:
    row = [escape(case.name), f"{escape(candidate)} [dim]/ {escape(case.reference)}[/]"]
    for check in CHECKS:
        text, grade = cell(case, candidate, check, ratio)
        row.append(f"[{GRADE_COLOURS.get(grade, 'green')}]{text}[/]")
    verdict = case.verdicts[candidate]
    return [*row, f"[{COLOURS[verdict]}]{VERDICT_SIGNS[verdict]} {verdict_words(case, candidate)}[/]"]


def _counts(result: RunResult) -> str:
    findings = [finding for case in result.cases for check in case.checks for finding in check.findings]
    grades = Counter(finding.grade for finding in findings)
    counted = ", ".join(f"{count} {grade}" for grade, count in grades.items())
    leaves, left = sum(len(case.leaves) for case in result.cases), sum(case.left_over for case in result.cases)
    notes = sum(len(case.deviations) for case in result.cases)
    return (
        f"{len(findings)} findings: {counted}; {leaves} leaves mapped, {left} left over; errata of the guides: "
        f"{notes}. A number is error / budget, 1 is the limit; {NOT_ASKED} does not apply"
    )


def _tried(tried: list[Finding]) -> str:
    """Whether the probes can tell: leaves moved and pairs of leaves swapped."""
    moved = [finding for finding in tried if finding.place.startswith("moving ")]
    swapped = [finding for finding in tried if finding.place.startswith("swapping ")]
    tampered = [finding for finding in tried if finding.place.startswith("tampering ")]
    blind = [finding.place for finding in tried if finding.grade == "unidentifiable"]
    noticed = [sum(finding.grade == "exact" for finding in group) for group in (moved, swapped, tampered)]
    longer = [finding.place for finding in tried if finding.place.startswith("lengthening ")]
    missed = f"; not told: {', '.join(map(escape, blind))}" if blind else ""
    changed = "".join(f"; environment: {escape(finding.note)}" for finding in tried if finding.place == "environment")
    missed += changed + "".join(f"; batch lengthened: {escape(place.removeprefix('lengthening '))}" for place in longer)
    return (
        f"probes: {noticed[0]} of {len(moved)} moved leaves and {noticed[1]} of {len(swapped)} swaps noticed; "
        f"{noticed[2]} of {len(tampered)} proofs break when an equation is changed{missed}"
    )


def _planted(cases: list[CaseResult]) -> str:
    """What became of planted faults."""
    tried = [case for case in cases if case.faults is not None]
    if not tried:
        return "[dim]faults: none planted; equiv run --selfcheck plants them[/]"
    found: Counter[str] = Counter()
    for case in tried:
        for row in case.faults.rows if case.faults else ():
            found.update(row.outcomes)
    rest = ", ".join(f"{found[outcome]} {outcome}" for outcome in OUTCOMES[1:])
    trouble = "".join(
        f"; {escape(case.name)}: {escape(case.faults.problem)}" for case in tried if case.faults and case.faults.problem
    )
    text = f"faults: {found['noticed']} of {found.total()} planted faults noticed, {rest}{trouble}"
    return f"[red]✗ {text}[/]" if found["survived"] or trouble else f"[dim]{text}[/]"


def _worst(result: RunResult) -> Iterator[str]:
    """What a reader looks at first: an error, else a difference, else what came closest to being one."""
    title = "First finding"
    found = worst_finding(result.cases, ("error",)) or worst_finding(result.cases, ("refuted",))
    if found is None:
        title, found = "Closest to its budget", _closest(result)
    if found is None:
        return
    case, check, finding = found
    yield f"\n[bold]{title}[/]: {escape(place_words(case, check, finding))}"
    for line in values(finding, case.reference, check.candidate):
        yield f"  {escape(line)}"


def _explained(result: RunResult) -> Iterator[str]:
    for case in result.cases:
        for check in case.checks:
            measured = [finding for finding in check.findings if finding.budget]
            if measured:
                finding = max(measured, key=severity)
                yield f"\n[bold]{escape(place_words(case, check, finding))}[/]"
                yield from (f"  {escape(line)}" for line in values(finding, case.reference, check.candidate))


def _closest(result: RunResult) -> tuple[CaseResult, CheckResult, Finding] | None:
    every = [(case, check, item) for case in result.cases for check in case.checks for item in check.findings]
    ranked = [entry for entry in every if entry[2].ratio and entry[2].grade in EQUAL]
    return max(ranked, key=lambda entry: severity(entry[2]), default=None)
