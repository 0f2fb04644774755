"""`equiv diff`: list what changed from an older run to a newer one. Needs no jax."""

from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from equiv.core.printable import escape_json
from equiv.core.results_json import read_results
from equiv.frontends.cli.base import echo, open_console, run_and_exit
from equiv.report.runs.diff import CHANGE_SIGNS, ChangeKind, RunDiff, diff_runs

CHANGE_COLOURS: dict[ChangeKind, str] = {"newly failing": "red", "fixed": "green", "appeared": "cyan"}


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def diff_command(old: Path, new: Path, as_json: bool) -> None:
    """List changes from OLD to NEW (JSON files of equiv run). Exit code 0: none, 1: some, 2: an error.

    A change is a comparison that newly fails or is fixed, a different grade, an error / budget ratio that changed by
    more than a factor of two, or a comparison that was added or removed. Changed package versions are listed but do
    not count as a change.
    """
    run_and_exit(lambda: _run_diff(old, new, as_json))


def _run_diff(old: Path, new: Path, as_json: bool) -> int:
    found = diff_runs(read_results(old), read_results(new))
    if as_json:
        echo(escape_json(msgspec.json.format(msgspec.json.encode(found), indent=1)))
    else:
        _show_history(found)
    return 1 if found.changes else 0


def _show_history(found: RunDiff) -> None:
    """Print a summary line, then changed versions, then one line per change."""
    console = open_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    kinds: list[ChangeKind] = [change.kind for change in found.changes]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    unchanged = f"{found.unchanged} comparison{'' if found.unchanged == 1 else 's'} unchanged"
    say(
        f"[bold]{CHANGE_SIGNS[kinds[0]]} {counted}; {unchanged}[/]"
        if kinds
        else f"[bold green]= nothing changed; {unchanged}[/]"
    )
    for name, before, after in found.versions:
        say(f"[dim]{escape(name)} {escape(before or 'absent')} -> {escape(after or 'absent')}[/]")
    table = Table(box=None, pad_edge=False, show_header=False)
    for change in found.changes:
        colour = CHANGE_COLOURS.get(change.kind, "yellow")
        table.add_row(
            f"[{colour}]{CHANGE_SIGNS[change.kind]} {change.kind}[/]",
            escape("-".join(filter(None, (change.case, change.candidate, change.check)))),
            escape(f"{change.old or 'absent'} -> {change.new or 'absent'}"),
            escape(change.place),
        )
    if found.changes:
        console.print(table)
