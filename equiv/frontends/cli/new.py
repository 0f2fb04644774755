"""`equiv new`: a first case file from two builders."""

from pathlib import Path

import click

from equiv.errors import EquivError
from equiv.frontends.cli.base import guard
from equiv.frontends.cli.inferred_case import Given, arguments, inferred, save, working


@click.command()
@arguments
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def new(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    output: Path,
    force: bool,
) -> None:
    """Write a case file for LEFT and RIGHT, its layer table inferred; what could not be is a comment in it."""
    guard(lambda: _new(Given(left, right, inputs, batch, methods), output, force))


def _new(given: Given, output: Path, force: bool) -> int:
    if output.exists() and not force:
        raise EquivError(f"{output}: there is a file already. Give another with -o, or --force to write over it.")
    with working() as progress:
        found = inferred(given, progress)
        save(found, output)
    missing = len(found.draft.missing)
    more = f"; {missing} to be mended, as comments in layers" if missing else ""
    click.echo(f"{output}: {len(found.rows)} rows{more}. Next: equiv run {output}")
    return 0
