"""`equiv map`: which layer is which, inferred from two builders."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.commands.base import guard, open_console
from equiv.commands.inferring import Given, arguments, certified, inferred, save, working
from equiv.report.terminal import show
from equiv.summary import exit_code

if TYPE_CHECKING:
    from equiv.infer.session import Inferred

OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the case file here.")


@click.command("map")
@arguments
@OUTPUT
@click.option("--no-run", is_flag=True, help="Only propose; do not run the case.")
def map_ports(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    output: Path | None,
    no_run: bool,
) -> None:
    """Infer which leaf of LEFT is which of RIGHT, from their programs, and run the case that follows.

    LEFT and RIGHT are builders, module:attribute or file.py:function: functions that return what hk.transform gives or
    a Linen module, or functions of rngs that return an NNX module.
    """
    guard(lambda: _map(Given(left, right, inputs, batch, methods), output, no_run))


def _map(given: Given, output: Path | None, no_run: bool) -> int:
    console = open_console()
    with working() as progress:
        found = inferred(given, progress)
        if output is not None:
            save(found, output)
        result = certified(found, output, progress) if found.complete and not no_run else None
    print_map(found, console)
    if output is not None:
        click.echo(f"case: {output}", err=True)
    if result is not None:
        console.print()
        show(result, console)
        if result.verdict == "different":
            from equiv.infer.tell import doubt

            console.print(doubt(found), soft_wrap=True, markup=False)
        return exit_code(result.verdict)
    return exit_code("same" if found.complete else "inconclusive")


def print_map(found: "Inferred", console: Console) -> None:
    """How much is mapped; the table leaf by leaf; what has to be said of it."""
    from equiv.infer.tell import KNOWN, headline, layout, place, remarks

    sign, colour = ("✓", "green") if found.complete else ("?", "yellow")
    console.print(f"[{colour} bold]{sign} {escape(headline(found))}[/]", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [port.backend for port in found.proposal.ports]
    for heading in ("row", *names, "layout", "known"):
        table.add_column(heading, overflow="fold")
    pairs = found.proposal.pairs
    rows = {place: row for row in found.rows for place in row.pairs}
    for number, pair in enumerate(pairs):
        row = rows.get(number)
        title = f"{row.layer.path} ({row.layer.kind})" if row and number == min(row.pairs) else "" if row else "none"
        leaves = [place(pair, found.proposal, side) for side in (0, 1)]
        cells = (title, *leaves, layout(pair, found.proposal), KNOWN[pair.evidence])
        table.add_row(*map(escape, cells))
    console.print(table)
    for line in remarks(found):
        console.print(escape(line), soft_wrap=True)
