"""`equiv diff`: what changed from an older run to a newer one; needs no jax."""

from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from equiv.core.results_json import read
from equiv.frontends.cli.base import guard, open_console
from equiv.report.runs.diff import SIGNS, History, Kind, history

COLOURS: dict[Kind, str] = {"newly failing": "red", "fixed": "green", "appeared": "cyan"}


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Say what changed from OLD to NEW (JSON files of equiv run): exit code 0 nothing, 1 something, 2 trouble.

    A change is a comparison that fails anew or no more, another grade, an error over budget that moved by more than
    twice, a comparison that is new or gone. Other versions alone are told and are none.
    """
    guard(lambda: _diff(old, new, as_json))


def _diff(old: Path, new: Path, as_json: bool) -> int:
    found = history(read(old), read(new))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
    else:
        _show(found)
    return 1 if found.changes else 0


def _show(found: History) -> None:
    """The first line is the verdict; then the versions, then a line a change."""
    console = open_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    kinds: list[Kind] = [change.kind for change in found.changes]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    unchanged = f"{found.unchanged} comparison{'' if found.unchanged == 1 else 's'} unchanged"
    say(
        f"[bold]{SIGNS[kinds[0]]} {counted}; {unchanged}[/]"
        if kinds
        else f"[bold green]= nothing changed; {unchanged}[/]"
    )
    for name, before, after in found.versions:
        say(f"[dim]{escape(name)} {escape(before or 'absent')} -> {escape(after or 'absent')}[/]")
    table = Table(box=None, pad_edge=False, show_header=False)
    for change in found.changes:
        colour = COLOURS.get(change.kind, "yellow")
        table.add_row(
            f"[{colour}]{SIGNS[change.kind]} {change.kind}[/]",
            escape("-".join(filter(None, (change.case, change.candidate, change.check)))),
            escape(f"{change.old or 'absent'} -> {change.new or 'absent'}"),
            escape(change.place),
        )
    if found.changes:
        console.print(table)
