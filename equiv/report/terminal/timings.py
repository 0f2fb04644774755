"""What the ports cost, in the terminal: the verdict first, then ratios with their intervals, beside a control."""

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
from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS
from equiv.report.terminal.run import COLOURS, surroundings

SIGNS = {SLOWER: "▲", FASTER: "▼", NO_DIFFERENCE: "=", TOO_FEW: "·", "": ""}


CLAIM_COLOURS = {SLOWER: "red", FASTER: "green", NO_DIFFERENCE: "default", TOO_FEW: "dim", "": "dim"}


LEGEND = (
    "ratios of times round by round with 99 % intervals: ▲ slower and ▼ faster by more than the control (the reference "
    "beside itself) allows, = no difference beyond that, · too few rounds for a claim"
)


UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def show_prices(result: RunResult, console: Console) -> None:
    """Print a bench run; where a table does not fit the width, a list."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"[{COLOURS[result.verdict]} bold]{VERDICT_SIGNS[result.verdict]} {escape(result.headline)}[/]")
    say(f"[dim]{escape(surroundings(result))}[/]")
    for problem in result.problems:
        say(f"[magenta]![/] {escape(problem)}")
    priced = [case for case in result.cases if case.costs is not None]
    if priced:
        say(f"[dim]{LEGEND}[/]")
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
        elif case.costs is not None:
            _case(case, case.costs, console, say)


Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings and cells of a table, as rich markup."""


def _case(case: CaseResult, costs: CaseCosts, console: Console, say: Callable[[str], None]) -> None:
    words = ", ".join(
        f"[{COLOURS[verdict]}]{VERDICT_SIGNS[verdict]} {escape(who)} {verdict_words(case, who)}[/]"
        for who, verdict in case.verdicts.items()
    )
    load = f", load {' to '.join(f'{number:.1f}' for number in costs.load)}" if costs.load else ""
    say(f"\n[bold]{escape(case.name)}[/]: {words} [dim]({costs.seconds:.0f} s{load})[/]")
    for who, why in costs.withheld.items():
        say(f"  [yellow]withheld[/] {escape(who)}: {escape(why)}")
    if costs.timings:
        _print(_ratios(costs.timings), console)
        _print(_counts(costs), console)
    for line in (*_same_programs(costs), *_inside(costs), *_naive(costs.timings)):
        say(line)
    if costs.growth:
        _print(_growth(costs.growth), console)
        say(_scan_against_loop(costs.growth))


def _print(rows: Rows, console: Console) -> None:
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
        told = [f"{escape(heading)} {text}" for heading, text in zip(headings[2:], row[2:], strict=True) if text]
        console.print(f"{row[0]} {row[1]}: {'; '.join(told)}", soft_wrap=True)


def _ratios(timings: Sequence[Timing]) -> Rows:
    """One row per program and phase, one column per way to call a candidate."""
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
                cells = [_claimed(found.get((program, phase, *way))) for way in over]
                control = f"[dim]{_claimed(replace(reference, ratio=reference.control))}[/]"
                rows.append((program, phase, duration(reference.p50), *cells, control, f"{reference.rounds}"))
    return headings, rows


def _claimed(timing: Timing | None) -> str:
    if timing is None:
        return NOT_ASKED
    told = _interval(timing.ratio) if timing.rounds > 1 or timing.ratio is None else _short(timing.ratio.value)
    return f"[{CLAIM_COLOURS[timing.claim]}]{f'{told} {SIGNS[timing.claim]}'.strip()}[/]"


def _interval(ratio: Ratio | None) -> str:
    """With as many digits as matter: `1.58 (1.42 to 1.66)`; a dash where there is no ratio."""
    if ratio is None:
        return NOT_ASKED
    return f"{_short(ratio.value)} ({_short(ratio.low)} to {_short(ratio.high)})"


def _short(number: float) -> str:
    return f"{number:.3g}" if number >= 10 else f"{number:.2f}"


def duration(seconds: float) -> str:
    """In the unit that fits: `993 µs`, `36.4 ms`; a dash for a difference of times that is lost in their noise."""
    if seconds <= 0:
        return NOT_ASKED
    size, unit = next((entry for entry in UNITS if seconds >= entry[0]), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def _counts(costs: CaseCosts) -> Rows:
    """What XLA says of every compiled program."""
    headings = ("program", "port", "equations", "instructions", "FLOPs", "accessed", "peak memory", "retraces")
    rows = [
        (
            one.program,
            f"{one.backend} {one.runner}",
            f"{one.equations}",
            f"{one.instructions}",
            _large(one.flops, ""),
            _large(one.bytes, "B"),
            _large(one.peak_bytes, "B"),
            f"[red]{one.retraces} ![/]" if one.retraces else "0",
        )
        for one in costs.programs
    ]
    return headings, rows


def _large(number: float | None, unit: str) -> str:
    if number is None:
        return NOT_ASKED
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


def _same_programs(costs: CaseCosts) -> Iterator[str]:
    """Where the optimised program is the reference's, any gap is the host's; elsewhere, what is more or less."""
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
            yield f"{who}: [green]= same optimised program[/] as {escape(reference)}: any gap is host-side"
        else:
            yield f"[dim]{who}: another optimised program: {escape(_first(differs))}[/]"


def _first(differs: str, most: int = 6) -> str:
    parts = differs.split(", ")
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more kinds" if len(parts) > most else "")


def _inside(costs: CaseCosts) -> Iterator[str]:
    """Where a step goes on the host, where a runner does more than call into JAX."""
    ways = dict.fromkeys((part.program, part.backend, part.runner) for part in costs.parts)
    for program, backend, runner in ways:
        parts = [
            part for part in costs.parts if (part.program, part.backend, part.runner) == (program, backend, runner)
        ]
        whole = sum(part.seconds for part in parts) or 1.0
        told = ", ".join(f"{part.part} {duration(part.seconds)} ({part.seconds / whole:.0%})" for part in parts)
        yield f"{escape(backend)} {runner}, {program}, {duration(whole)}: {told}"


def _naive(timings: Sequence[Timing]) -> Iterator[str]:
    """What usual timing would have said: all calls of one, then all calls of the other."""
    steps = [one for one in timings if one.phase == "step" and one.naive is not None]
    for program in dict.fromkeys(one.program for one in steps):
        told = ", ".join(
            f"{'control' if one.ratio is None else f'{escape(one.backend)} {one.runner}'} {_interval(one.naive)}"
            for one in steps
            if one.program == program
        )
        yield f"[dim]timed back to back instead, {program}: {told}[/]"


def _growth(growth: Sequence[Growth]) -> Rows:
    ways = list(dict.fromkeys((one.backend, one.runner) for one in growth))
    found = {(one.form, one.depth, one.phase, one.backend, one.runner): one for one in growth}
    rows = []
    for form, depth in dict.fromkeys((one.form, one.depth) for one in growth):
        for phase in PHASES:
            cells = [found.get((form, depth, phase, *way)) for way in ways]
            rows.append((f"{depth} {form}", phase, *(duration(one.seconds) if one else NOT_ASKED for one in cells)))
    return ("layers", "phase", *(f"{backend} {runner}" for backend, runner in ways)), rows


def _scan_against_loop(growth: Sequence[Growth]) -> str:
    """By how much a scan cuts what the guides say that it cuts, at the largest depth."""
    deepest = max(one.depth for one in growth)
    seconds = {(one.backend, one.runner, one.form, one.phase): one.seconds for one in growth if one.depth == deepest}
    told = [
        f"{escape(backend)} {runner} {phase} {_short(seconds[backend, runner, 'unrolled', phase] / scanned)}"
        for (backend, runner, form, phase), scanned in seconds.items()
        if form == "scanned" and phase in ("trace", "compile", "dispatch") and scanned > 0
        if (backend, runner, "unrolled", phase) in seconds
    ]
    return f"{deepest} layers, unrolled / scanned: {', '.join(told)}"
