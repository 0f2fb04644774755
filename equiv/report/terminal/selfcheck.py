"""A selfcheck in the terminal: how many faults were noticed, then kind of fault by case."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.core.selfcheck_results import BUILDER, OUTCOMES, SIGNS, Kill, Selfcheck, counts, exit_code

COLOURS = {"noticed": "green", "equivalent": "cyan", "unidentifiable": "yellow", "survived": "red"}


MEANINGS = {
    "noticed": "noticed",
    "equivalent": "equivalent: proved to be no fault",
    "unidentifiable": "unidentifiable: no probe can tell",
    "survived": "survived: hidden by the budget",
}


PARTS = {"in programs": False, "in builders": True}


NUMBERS = re.compile(r"^moves .* by [^ ]*, ")
"""The part of a reason that is another in every place."""


VERDICTS = {0: "[green bold]✓", 1: "[red bold]✗", 2: "[magenta bold]!", 3: "[yellow bold]?"}


def show_matrix(result: Selfcheck, console: Console) -> None:
    """Print a selfcheck; where the table does not fit the width, a list."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"{VERDICTS[exit_code(result)]} {escape(result.headline)}[/]")
    _say_where(result, say)
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
    planted = {kill.fault for case in result.cases for kill in case.kills}
    kinds = [kind for kind in dict.fromkeys(kind for case in result.cases for kind in case.kinds) if kind in planted]
    cells = {
        (kind, case.name): _cell([kill for kill in case.kills if kill.fault == kind])
        for kind in kinds
        for case in result.cases
    }
    names = [case.name for case in result.cases if case.kills]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("fault", *names):
        table.add_column(escape(heading), no_wrap=True)
    for kind in kinds:
        table.add_row(escape(kind), *(cells[kind, name] for name in names))
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table)
    else:
        for kind in kinds:
            there = [f"{escape(name)} {cells[kind, name]}" for name in names if cells[kind, name]]
            say(f"{escape(kind)}: {', '.join(there)}")
    if kinds:
        say(f"[dim]{'; '.join(f'{SIGNS[outcome]} {MEANINGS[outcome]}' for outcome in OUTCOMES)}[/]")
    _say_missed(result, say)


def _say_where(result: Selfcheck, say: Callable[[str], None]) -> None:
    """What became of the faults in programs, and of those in builders."""
    every = [kill for case in result.cases for kill in case.kills]
    parts = {where: [kill for kill in every if (kill.program == BUILDER) == inside] for where, inside in PARTS.items()}
    if all(parts.values()):
        say("; ".join(f"{len(kills)} {where}: {_cell(kills)}" for where, kills in parts.items()))


def _say_missed(result: Selfcheck, say: Callable[[str], None]) -> None:
    """Why no probe can tell, by kind; and every survivor by itself."""
    unknown = [kill for case in result.cases for kill in case.kills if kill.outcome == "unidentifiable"]
    reasons = Counter((kill.fault, NUMBERS.sub("", kill.reason)) for kill in unknown)
    for (fault, reason), count in reasons.items():
        say(f"[yellow]{SIGNS['unidentifiable']} {count}[/] {escape(fault)}: {escape(reason)}")
    for case in result.cases:
        for kill in (kill for kill in case.kills if kill.outcome == "survived"):
            program = "" if kill.program == BUILDER else f", {kill.program}"
            place = f"{case.name}, {kill.candidate}{program}: {kill.fault}, {kill.site}"
            say(f"[red]{SIGNS['survived']} survived[/] {escape(place)}: {escape(kill.reason)}")


def _cell(kills: Sequence[Kill]) -> str:
    """How many came to each outcome, with its sign."""
    found = counts(kills)
    return " ".join(
        f"[{COLOURS[outcome]}]{SIGNS[outcome]} {found[outcome]}[/]" for outcome in OUTCOMES if found[outcome]
    )
