"""`equiv map`: which layer is which, inferred from two builders."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.core.verdict import exit_code
from equiv.frontends.cli.base import guard, open_console
from equiv.frontends.cli.inferred_case import Given, arguments, certified, inferred, save, working
from equiv.report.terminal.run import show

if TYPE_CHECKING:
    from equiv.infer.session import Inferred


OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the case file here.")


@click.command("map")
@arguments
@OUTPUT
@click.option("--no-run", is_flag=True, help="Only propose; do not run the case.")
@click.option("--leaves", is_flag=True, help="Print the map leaf by leaf, not row by row.")
def map_ports(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    output: Path | None,
    no_run: bool,
    leaves: bool,
) -> None:
    """Infer which leaf of LEFT is which of RIGHT, from their programs, and run the case that follows.

    LEFT and RIGHT are builders, module:attribute or file.py:function: functions that return what hk.transform gives or
    a Linen module, or functions of rngs that return an NNX module.
    """
    guard(lambda: _map(Given(left, right, inputs, batch, methods), output, no_run, leaves))


def _map(given: Given, output: Path | None, no_run: bool, leaves: bool) -> int:
    console = open_console()
    with working() as progress:
        found = inferred(given, progress)
        if output is not None:
            save(found, output)
        result = certified(found, output, progress) if found.covered and not no_run else None
    print_map(found, console, leaves)
    if output is not None:
        click.echo(f"case: {output}", err=True)
    if result is not None:
        console.print()
        show(result, console)
        if result.verdict == "different" and found.complete:
            from equiv.infer.describe import doubt

            console.print(doubt(found), soft_wrap=True, markup=False)
        return exit_code(result.verdict)
    return exit_code("same" if found.complete else "inconclusive")


def print_map(found: "Inferred", console: Console, leaves: bool = False) -> None:
    """How much is mapped; the table, row by row or leaf by leaf; what has to be said of it."""
    from equiv.infer.describe import by_leaf, by_row, headline, remarks

    sign, colour = ("✓", "green") if found.complete else ("?", "yellow")
    console.print(f"[{colour} bold]{sign} {escape(headline(found))}[/]", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [port.backend for port in found.proposal.ports]
    for heading in ("row", *names, "layout", "known"):
        table.add_column(heading, overflow="fold")
    for cells in (by_leaf if leaves else by_row)(found):
        table.add_row(*map(escape, cells))
    console.print(table)
    for line in remarks(found):
        console.print(escape(line), soft_wrap=True)
