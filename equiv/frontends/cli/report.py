"""`equiv report`: write results as documents. Needs neither jax nor a framework."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from equiv.core.files import write_file
from equiv.core.results import RunResult
from equiv.core.results_json import read_results
from equiv.errors import EquivError
from equiv.frontends.cli.base import echo, run_and_exit
from equiv.report.junit import render_junit
from equiv.report.markdown import render_markdown

FILE_TYPE = click.Path(path_type=Path)

DOCUMENT_SUFFIXES = ".html, .md or .xml"


@click.command("report")
@click.argument("results", nargs=-1, required=True, type=FILE_TYPE)
@click.option(
    "-o", "--output", type=FILE_TYPE, help="Write HTML, Markdown or JUnit, by suffix; default: print Markdown."
)
@click.option("--md", "markdown_file", type=FILE_TYPE, help="Write Markdown to this file, too.")
@click.option("--junit", "junit_file", type=FILE_TYPE, help="Write JUnit XML to this file, too.")
@click.option("--since", type=FILE_TYPE, help="List changes since this earlier results file in the HTML.")
def report_command(
    results: tuple[Path, ...],
    output: Path | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    since: Path | None,
) -> None:
    """Write RESULTS (JSON files of equiv run; several are merged) as one document."""
    more = (("--md", markdown_file, render_markdown), ("--junit", junit_file, render_junit))
    run_and_exit(lambda: _write_documents(results, (("-o", output, _document_writer(output, since)), *more)))


DocumentWriter = Callable[[Sequence[RunResult]], str]


def _write_documents(results: tuple[Path, ...], documents: Sequence[tuple[str, Path | None, DocumentWriter]]) -> int:
    runs = [read_results(path) for path in results]
    asked = [(option, path, view) for option, path, view in documents if path is not None]
    for option, path, view in asked:
        data = view(runs).encode()
        write_file(path, data, f"Give another file with {option}.")
        compared = sum(len(case.verdicts) for run in runs for case in run.cases)
        files = "1 file" if len(runs) == 1 else f"{len(runs)} files"
        echo(f"{compared} comparisons from {files} -> {path} ({len(data) / 1000:.0f} kB)", err=True)
    if not asked:
        echo(render_markdown(runs), nl=False)
    return 0


def _document_writer(output: Path | None, since: Path | None) -> DocumentWriter:
    """Choose the document writer by the suffix of a file."""
    suffix = output.suffix.lower() if output else ".md"
    if since is not None and suffix not in (".html", ".htm"):
        raise EquivError(f"--since {since}: only HTML lists changes.", fix="Give -o FILE.html, or use equiv diff.")
    if suffix in (".html", ".htm"):
        from equiv.report.html.page import render_page  # templates and plots: not for the other formats

        earlier = None if since is None else read_results(since)
        return lambda runs: render_page(runs, earlier)
    if suffix in (".md", ".markdown", ".txt", ""):
        return render_markdown
    if suffix == ".xml":
        return render_junit
    raise EquivError(f"{output}: {suffix} is not a known format.", fix=f"Give a file that ends in {DOCUMENT_SUFFIXES}.")
