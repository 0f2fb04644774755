"""`equiv list`: the cases and their lessons."""

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from equiv.core.case_files import find, load
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXPRESSION, PATHS, TROUBLE, guard, open_console


@click.command("list")
@PATHS
@EXPRESSION
def list_cases(paths: tuple[Path, ...], expression: str) -> None:
    """List the cases under PATHS (default: cases) with their lessons."""
    guard(lambda: _list(paths or (Path("cases"),), expression))


def _list(paths: tuple[Path, ...], expression: str) -> int:
    table, trouble = Table(box=None, pad_edge=False, header_style="bold"), False
    for heading in ("case", "models", "lesson"):
        table.add_column(heading)
    for file in find(paths, expression):
        try:
            loaded = load(file)
            table.add_row(*map(escape, (loaded.name, " ".join(loaded.case.models), loaded.lesson)))
        except EquivError as error:
            trouble = True
            table.add_row(escape(file.name), "!", escape(str(error)))
    open_console().print(table)
    return TROUBLE if trouble else 0
