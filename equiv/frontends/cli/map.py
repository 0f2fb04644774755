"""`equiv map`: infer which layer corresponds to which, from two builders."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.verdict import verdict_exit_code
from equiv.frontends.cli.base import echo, open_console, run_and_exit, show_status
from equiv.frontends.cli.inferred_case import (
    BuilderArguments,
    builder_arguments,
    infer_map,
    write_case,
)
from equiv.report.terminal.run import print_run
from equiv.running.compile_cache import keep_compiled_here

if TYPE_CHECKING:
    from equiv.infer.session import InferredLayers


OUTPUT_OPTION = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the case file to this path."
)


@click.command("map")
@builder_arguments
@OUTPUT_OPTION
@click.option("--no-run", is_flag=True, help="Only infer the map; do not run the case.")
@click.option("--leaves", is_flag=True, help="Print one line per leaf instead of one per layer.")
def map_command(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    keep: tuple[str, ...],
    output: Path | None,
    no_run: bool,
    leaves: bool,
) -> None:
    """Infer which leaf of LEFT corresponds to which of RIGHT, from their programs, and run the resulting case.

    LEFT and RIGHT are builders, module:attribute or file.py:function: functions that return what hk.transform gives or
    a Linen module, or functions of rngs that return an NNX module.
    """
    run_and_exit(
        lambda: _infer_and_show(BuilderArguments(left, right, inputs, batch, methods, keep), output, no_run, leaves)
    )


def _infer_and_show(given: BuilderArguments, output: Path | None, no_run: bool, leaves: bool) -> int:
    console = open_console()
    with keep_compiled_here(), show_status() as progress:
        found = infer_map(given, progress)
        if output is not None:
            write_case(found, output)
        result = None
        if found.covered and not no_run:
            from equiv.frontends.functions import compare_through
            from equiv.frontends.run import run

            case = Case("", {}, found.draft.batch, (), methods=found.draft.methods)
            loaded = LoadedCase("inferred", found.draft.lesson, case)
            result = run([output], progress=progress) if output else compare_through(found, loaded, progress)
    print_map(found, console, leaves)
    if output is not None:
        echo(f"case: {output}", err=True)
    if result is not None:
        console.print()
        print_run(result, console)
        if result.verdict == "different" and found.complete:
            from equiv.infer.describe import inference_caveat

            console.print(inference_caveat(found), soft_wrap=True, markup=False)
        return verdict_exit_code(result.verdict)
    return verdict_exit_code("same" if found.complete else "inconclusive")


def print_map(found: "InferredLayers", console: Console, leaves: bool = False) -> None:
    """Print how much is mapped, the table by row or by leaf, and remarks."""
    from equiv.infer.describe import inference_headline, inference_remarks, leaf_cells, row_cells

    sign, colour = ("✓", "green") if found.complete else ("?", "yellow")
    console.print(f"[{colour} bold]{sign} {escape(inference_headline(found))}[/]", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [port.name for port in found.proposal.ports]
    for heading in ("row", *names, "layout", "known"):
        table.add_column(heading, overflow="fold")
    for cells in (leaf_cells if leaves else row_cells)(found):
        table.add_row(*map(escape, cells))
    console.print(table)
    for line in inference_remarks(found):
        console.print(escape(line), soft_wrap=True)
