"""Print a benchmark in the terminal: verdicts first, then time ratios with intervals and a control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.core.headline import verdict_words
from equiv.core.results import CaseResult, RunResult
from equiv.core.timings import (
    FASTER,
    NO_DIFFERENCE,
    PHASES,
    SLOWER,
    TOO_FEW,
    CaseCosts,
    Growth,
    ProgramCost,
    Ratio,
    Timing,
)
from equiv.report.cells import NOT_APPLICABLE, VERDICT_SIGNS
from equiv.report.terminal.run import VERDICT_COLOURS, device_and_versions

CLAIM_SIGNS = {SLOWER: "▲", FASTER: "▼", NO_DIFFERENCE: "=", TOO_FEW: "·", "": ""}

CLAIM_COLOURS = {SLOWER: "red", FASTER: "green", NO_DIFFERENCE: "default", TOO_FEW: "dim", "": "dim"}

BENCH_LEGEND = (
    "time ratios, paired by round, with 99 % intervals: ▲ slower and ▼ faster by more than the control (the reference "
    "against itself) allows, = no such difference, · too few rounds for a claim"
)

TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def print_bench(result: RunResult, console: Console) -> None:
    """Print a benchmark; where a table does not fit the width, print a list."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"[{VERDICT_COLOURS[result.verdict]} bold]{VERDICT_SIGNS[result.verdict]} {escape(result.headline)}[/]")
    say(f"[dim]{escape(device_and_versions(result))}[/]")
    for problem in result.problems:
        say(f"[magenta]![/] {escape(problem)}")
    priced = [case for case in result.cases if case.costs is not None]
    if priced:
        say(f"[dim]{BENCH_LEGEND}[/]")
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
        elif case.costs is not None:
            _print_case_costs(case, case.costs, console, say)


TableRows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings and rows of a table, as rich markup."""


def _print_case_costs(case: CaseResult, costs: CaseCosts, console: Console, say: Callable[[str], None]) -> None:
    words = ", ".join(
        f"[{VERDICT_COLOURS[verdict]}]{VERDICT_SIGNS[verdict]} {escape(who)} {verdict_words(case, who)}[/]"
        for who, verdict in case.verdicts.items()
    )
    load = f", load {' to '.join(f'{number:.1f}' for number in costs.load)}" if costs.load else ""
    say(f"\n[bold]{escape(case.name)}[/]: {words} [dim]({costs.seconds:.0f} s{load})[/]")
    for who, why in costs.withheld.items():
        say(f"  [yellow]withheld[/] {escape(who)}: {escape(why)}")
    if costs.timings:
        _print_rows(_ratio_rows(costs.timings), console)
        _print_rows(_program_rows(costs), console)
    for line in (*_program_difference_lines(costs), *_step_part_lines(costs), *_back_to_back_lines(costs.timings)):
        say(line)
    if costs.growth:
        _print_rows(_growth_rows(costs.growth), console)
        say(_scan_line(costs.growth))


def _print_rows(rows: TableRows, console: Console) -> None:
    headings, cells = rows
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(escape(heading), no_wrap=True)
    for row in cells:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table)
        return
    for row in cells:
        values = [f"{escape(heading)} {text}" for heading, text in zip(headings[2:], row[2:], strict=True) if text]
        console.print(f"{row[0]} {row[1]}: {'; '.join(values)}", soft_wrap=True)


def _ratio_rows(timings: Sequence[Timing]) -> TableRows:
    """Return one row per program and phase, one column per candidate and runner."""
    first = timings[0]
    ways = list(dict.fromkeys((one.backend, one.runner) for one in timings))
    over = [(backend, runner) for backend, runner in ways if (backend, runner) != (first.backend, first.runner)]
    found = {(one.program, one.phase, one.backend, one.runner): one for one in timings}
    headings = (
        "program",
        "phase",
        f"{first.backend} {first.runner}",
        *(f"{backend} {runner} / {first.backend}" for backend, runner in over),
        "control",
        "rounds",
    )
    rows = []
    for program in dict.fromkeys(one.program for one in timings):
        for phase in PHASES:
            if reference := found.get((program, phase, first.backend, first.runner)):
                cells = [_claim_cell(found.get((program, phase, *way))) for way in over]
                control = f"[dim]{_claim_cell(replace(reference, ratio=reference.control))}[/]"
                rows.append((program, phase, format_duration(reference.p50), *cells, control, f"{reference.rounds}"))
    return headings, rows


def _claim_cell(timing: Timing | None) -> str:
    if timing is None:
        return NOT_APPLICABLE
    interval = (
        _ratio_interval(timing.ratio) if timing.rounds > 1 or timing.ratio is None else _short_ratio(timing.ratio.value)
    )
    return f"[{CLAIM_COLOURS[timing.claim]}]{f'{interval} {CLAIM_SIGNS[timing.claim]}'.strip()}[/]"


def _ratio_interval(ratio: Ratio | None) -> str:
    """Return a ratio with its interval, `1.58 (1.42 to 1.66)`; a dash where there is no ratio."""
    if ratio is None:
        return NOT_APPLICABLE
    return f"{_short_ratio(ratio.value)} ({_short_ratio(ratio.low)} to {_short_ratio(ratio.high)})"


def _short_ratio(number: float) -> str:
    return f"{number:.3g}" if number >= 10 else f"{number:.2f}"


def format_duration(seconds: float) -> str:
    """Format seconds in a fitting unit: `993 µs`, `36.4 ms`; a dash for a time difference that is below the noise."""
    if seconds <= 0:
        return NOT_APPLICABLE
    size, unit = next((entry for entry in TIME_UNITS if seconds >= entry[0]), TIME_UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def _program_rows(costs: CaseCosts) -> TableRows:
    """Return XLA's cost analysis of every compiled program."""
    headings = ("program", "port", "equations", "instructions", "FLOPs", "accessed", "peak memory", "retraces")
    rows = [
        (
            one.program,
            f"{one.backend} {one.runner}",
            f"{one.equations}",
            f"{one.instructions}",
            _large_number(one.flops, ""),
            _large_number(one.bytes, "B"),
            _large_number(one.peak_bytes, "B"),
            f"[red]{one.retraces} ![/]" if one.retraces else "0",
        )
        for one in costs.programs
    ]
    return headings, rows


def _large_number(number: float | None, unit: str) -> str:
    if number is None:
        return NOT_APPLICABLE
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


def _program_difference_lines(costs: CaseCosts) -> Iterator[str]:
    """Yield whether each optimised program is the reference's; if so, a time difference is on the host."""
    reference = costs.timings[0].backend if costs.timings else ""
    groups: dict[tuple[str, bool, str], list[ProgramCost]] = {}
    for one in costs.programs:
        if one.backend != reference:
            groups.setdefault((one.backend, one.identical, one.differs), []).append(one)
    for (backend, identical, differs), ones in groups.items():
        runners, programs = (
            ", ".join(dict.fromkeys(words)) for words in zip(*((one.runner, one.program) for one in ones), strict=True)
        )
        who = f"{escape(backend)} ({runners}) {programs}"
        if identical:
            same = f"[green]= same optimised program[/] as {escape(reference)}"
            yield f"{who}: {same}: any time difference is on the host"
        else:
            yield f"[dim]{who}: different optimised program: {escape(_first_kinds(differs))}[/]"


def _first_kinds(differs: str, most: int = 6) -> str:
    parts = differs.split(", ")
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more kinds" if len(parts) > most else "")


def _step_part_lines(costs: CaseCosts) -> Iterator[str]:
    """Yield how a step's host time is spent, for runners that do more than call into JAX."""
    ways = dict.fromkeys((part.program, part.backend, part.runner) for part in costs.parts)
    for program, backend, runner in ways:
        parts = [
            part for part in costs.parts if (part.program, part.backend, part.runner) == (program, backend, runner)
        ]
        whole = sum(part.seconds for part in parts) or 1.0
        spent = ", ".join(f"{part.part} {format_duration(part.seconds)} ({part.seconds / whole:.0%})" for part in parts)
        yield f"{escape(backend)} {runner}, {program}, {format_duration(whole)}: {spent}"


def _back_to_back_lines(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield the ratios of unpaired timing: all calls of one port, then all calls of the other."""
    steps = [one for one in timings if one.phase == "step" and one.back_to_back is not None]
    for program in dict.fromkeys(one.program for one in steps):
        ours = [one for one in steps if one.program == program]
        names = ["control" if one.ratio is None else f"{escape(one.backend)} {one.runner}" for one in ours]
        ratios = ", ".join(f"{name} {_ratio_interval(one.back_to_back)}" for name, one in zip(names, ours, strict=True))
        yield f"[dim]if timed one port after the other, {program}: {ratios}[/]"


def _growth_rows(growth: Sequence[Growth]) -> TableRows:
    ways = list(dict.fromkeys((one.backend, one.runner) for one in growth))
    found = {(one.form, one.depth, one.phase, one.backend, one.runner): one for one in growth}
    rows = []
    for form, depth in dict.fromkeys((one.form, one.depth) for one in growth):
        for phase in PHASES:
            cells = [found.get((form, depth, phase, *way)) for way in ways]
            rows.append(
                (f"{depth} {form}", phase, *(format_duration(one.seconds) if one else NOT_APPLICABLE for one in cells))
            )
    return ("layers", "phase", *(f"{backend} {runner}" for backend, runner in ways)), rows


def _scan_line(growth: Sequence[Growth]) -> str:
    """Return by what factor a scan shortens tracing, compiling and dispatch at the largest depth."""
    deepest = max(one.depth for one in growth)
    seconds = {(one.backend, one.runner, one.form, one.phase): one.seconds for one in growth if one.depth == deepest}
    factors = [
        f"{escape(backend)} {runner} {phase} {_short_ratio(seconds[backend, runner, 'unrolled', phase] / scanned)}"
        for (backend, runner, form, phase), scanned in seconds.items()
        if form == "scanned" and phase in ("trace", "compile", "dispatch") and scanned > 0
        if (backend, runner, "unrolled", phase) in seconds
    ]
    return f"{deepest} layers, unrolled / scanned: {', '.join(factors)}"
