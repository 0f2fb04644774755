"""`equiv list`: list cases and their lessons."""

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from equiv.core.case_files import find_case_files, load_case
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXIT_TROUBLE, EXPRESSION_OPTION, PATHS_ARGUMENT, open_console, run_and_exit


@click.command("list")
@PATHS_ARGUMENT
@EXPRESSION_OPTION
def list_command(paths: tuple[Path, ...], expression: str) -> None:
    """List the cases under PATHS (default: cases) with their lessons."""
    run_and_exit(lambda: _show_cases(paths or (Path("cases"),), expression))


def _show_cases(paths: tuple[Path, ...], expression: str) -> int:
    table, trouble = Table(box=None, pad_edge=False, header_style="bold"), False
    for heading in ("case", "models", "lesson"):
        table.add_column(heading)
    for file in find_case_files(paths, expression):
        try:
            loaded = load_case(file)
            table.add_row(*map(escape, (loaded.name, " ".join(loaded.case.models), loaded.lesson)))
        except EquivError as error:
            trouble = True
            table.add_row(escape(file.name), "!", escape(str(error)))
    open_console().print(table)
    return EXIT_TROUBLE if trouble else 0
