"""Print a selfcheck in the terminal: how many mutants were killed, then a table of fault kinds by case."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.core.selfcheck_results import (
    BUILDER,
    OUTCOME_SIGNS,
    OUTCOMES,
    MutantResult,
    Selfcheck,
    count_outcomes,
    selfcheck_exit_code,
)

OUTCOME_COLOURS = {"killed": "green", "equivalent": "cyan", "unidentifiable": "yellow", "survived": "red"}

OUTCOME_MEANINGS = {
    "killed": "killed: noticed by a check",
    "equivalent": "equivalent: proved to change nothing",
    "unidentifiable": "unidentifiable: no probe can show it",
    "survived": "survived: within the budget, not noticed",
}

FAULT_ORIGINS = {"in programs": False, "in builders": True}

MOVED_AMOUNT = re.compile(r"^moves .* by [^ ]*, ")
"""The part of a reason that varies from place to place."""

EXIT_CODE_SIGNS = {0: "[green bold]✓", 1: "[red bold]✗", 2: "[magenta bold]!", 3: "[yellow bold]?"}


def print_selfcheck(result: Selfcheck, console: Console) -> None:
    """Print a selfcheck; where the table does not fit the width, print a list."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"{EXIT_CODE_SIGNS[selfcheck_exit_code(result)]} {escape(result.headline)}[/]")
    _print_origins(result, say)
    for case in result.cases:
        if case.problem:
            say(f"[magenta]! {escape(case.name)}[/]: {escape(case.problem)}")
    planted = {mutant.fault for case in result.cases for mutant in case.mutants}
    kinds = [kind for kind in dict.fromkeys(kind for case in result.cases for kind in case.kinds) if kind in planted]
    cells = {
        (kind, case.name): _outcome_cell([mutant for mutant in case.mutants if mutant.fault == kind])
        for kind in kinds
        for case in result.cases
    }
    names = [case.name for case in result.cases if case.mutants]
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
        say(f"[dim]{'; '.join(f'{OUTCOME_SIGNS[outcome]} {OUTCOME_MEANINGS[outcome]}' for outcome in OUTCOMES)}[/]")
    _print_missed(result, say)


def _print_origins(result: Selfcheck, say: Callable[[str], None]) -> None:
    """Print the outcomes of faults in programs, and of faults in builders."""
    every = [mutant for case in result.cases for mutant in case.mutants]
    parts = {
        where: [mutant for mutant in every if (mutant.program == BUILDER) == inside]
        for where, inside in FAULT_ORIGINS.items()
    }
    if all(parts.values()):
        say("; ".join(f"{len(mutants)} {where}: {_outcome_cell(mutants)}" for where, mutants in parts.items()))


def _print_missed(result: Selfcheck, say: Callable[[str], None]) -> None:
    """Print why no probe can show a fault, by kind; and every fault that survived."""
    unidentifiable = [mutant for case in result.cases for mutant in case.mutants if mutant.outcome == "unidentifiable"]
    reasons = Counter((mutant.fault, MOVED_AMOUNT.sub("", mutant.reason)) for mutant in unidentifiable)
    for (fault, reason), count in reasons.items():
        say(f"[yellow]{OUTCOME_SIGNS['unidentifiable']} {count}[/] {escape(fault)}: {escape(reason)}")
    for case in result.cases:
        for mutant in (mutant for mutant in case.mutants if mutant.outcome == "survived"):
            program = "" if mutant.program == BUILDER else f", {mutant.program}"
            place = f"{case.name}, {mutant.candidate}{program}: {mutant.fault}, {mutant.site}"
            say(f"[red]{OUTCOME_SIGNS['survived']} survived[/] {escape(place)}: {escape(mutant.reason)}")


def _outcome_cell(mutants: Sequence[MutantResult]) -> str:
    """Return the number of faults with each outcome, with its sign."""
    found = count_outcomes(mutants)
    return " ".join(
        f"[{OUTCOME_COLOURS[outcome]}]{OUTCOME_SIGNS[outcome]} {found[outcome]}[/]"
        for outcome in OUTCOMES
        if found[outcome]
    )
