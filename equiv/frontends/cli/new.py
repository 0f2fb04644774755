"""`equiv new`: write a first case file from two builders."""

from pathlib import Path

import click

from equiv.errors import EquivError
from equiv.frontends.cli.base import echo, run_and_exit, show_status
from equiv.frontends.cli.inferred_case import BuilderArguments, builder_arguments, infer_map, write_case


@click.command("new")
@builder_arguments
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Write the case file to this path."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def new_command(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    keep: tuple[str, ...],
    output: Path,
    force: bool,
) -> None:
    """Write a case file for LEFT and RIGHT, with an inferred layer table.

    Rows that could not be inferred are comments in it.
    """
    run_and_exit(lambda: _write_new_case(BuilderArguments(left, right, inputs, batch, methods, keep), output, force))


def _write_new_case(given: BuilderArguments, output: Path, force: bool) -> int:
    if output.exists() and not force:
        raise EquivError(f"{output}: the file exists.", fix="Give another with -o, or pass --force to overwrite it.")
    with show_status() as progress:
        found = infer_map(given, progress)
        write_case(found, output)
    missing = len(found.draft.missing)
    more = f"; {missing} to be completed, as comments in layers" if missing else ""
    echo(f"{output}: {len(found.rows)} rows{more}. Next: equiv run {output}")
    return 0
