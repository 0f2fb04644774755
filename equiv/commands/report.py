"""`equiv report`: results to a document; needs no jax."""

from pathlib import Path

import click

from equiv.commands.base import guard, write
from equiv.report.markdown import markdown
from equiv.results import read


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; default: standard output.")
def report(results: tuple[Path, ...], output: Path | None) -> None:
    """Write RESULTS (JSON files of equiv run) as one Markdown document."""
    guard(lambda: _report(results, output))


def _report(results: tuple[Path, ...], output: Path | None) -> int:
    text = markdown([read(path) for path in results])
    if output is None:
        click.echo(text, nl=False)
    else:
        write(output, text.encode(), "Give another file with -o.")
    return 0
