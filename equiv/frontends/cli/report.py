"""`equiv report`: results to documents; needs neither jax nor a framework."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from equiv.core.results import RunResult
from equiv.core.results_json import read
from equiv.errors import EquivError
from equiv.frontends.cli.base import guard, write
from equiv.report.junit import junit
from equiv.report.markdown import markdown

FILE = click.Path(path_type=Path)


SUFFIXES = ".html, .md or .xml"


@click.command()
@click.argument("results", nargs=-1, required=True, type=FILE)
@click.option(
    "-o", "--output", type=FILE, help="HTML, Markdown or JUnit by its suffix; default: Markdown to the screen."
)
@click.option("--md", "markdown_file", type=FILE, help="Write Markdown to this file, too.")
@click.option("--junit", "junit_file", type=FILE, help="Write JUnit XML to this file, too.")
@click.option("--since", type=FILE, help="An earlier results file: the HTML says what has changed.")
def report(
    results: tuple[Path, ...],
    output: Path | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    since: Path | None,
) -> None:
    """Write RESULTS (JSON files of equiv run; several are merged) as one document."""
    more = (("--md", markdown_file, markdown), ("--junit", junit_file, junit))
    guard(lambda: _report(results, (("-o", output, _view(output, since)), *more)))


View = Callable[[Sequence[RunResult]], str]


def _report(results: tuple[Path, ...], documents: Sequence[tuple[str, Path | None, View]]) -> int:
    runs = [read(path) for path in results]
    asked = [(option, path, view) for option, path, view in documents if path is not None]
    for option, path, view in asked:
        data = view(runs).encode()
        write(path, data, f"Give another file with {option}.")
        compared = sum(len(case.verdicts) for run in runs for case in run.cases)
        files = "1 file" if len(runs) == 1 else f"{len(runs)} files"
        click.echo(f"{compared} comparisons from {files} -> {path} ({len(data) / 1000:.0f} kB)", err=True)
    if not asked:
        click.echo(markdown(runs), nl=False)
    return 0


def _view(output: Path | None, since: Path | None) -> View:
    """How a file is written, by its suffix."""
    suffix = output.suffix.lower() if output else ".md"
    if since is not None and suffix not in (".html", ".htm"):
        raise EquivError(f"--since {since}: only HTML tells what has changed. Give -o FILE.html, or use equiv diff.")
    if suffix in (".html", ".htm"):
        from equiv.report.html.page import page  # templates and plots: not for the other formats

        earlier = None if since is None else read(since)
        return lambda runs: page(runs, earlier)
    if suffix in (".md", ".markdown", ".txt", ""):
        return markdown
    if suffix == ".xml":
        return junit
    raise EquivError(
        f"{output}: {suffix} is none of the formats that can be written. Give a file that ends in {SUFFIXES}."
    )
