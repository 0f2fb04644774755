"""`equiv check`: two builders to a verdict, without a case file."""

from datetime import UTC, datetime
from pathlib import Path

import click

from equiv.core.results import RunResult
from equiv.core.results_json import encode
from equiv.core.verdict import exit_code
from equiv.frontends.cli.base import guard, open_console, write
from equiv.frontends.cli.inferred_case import Given, arguments, certified, inferred, working
from equiv.report.terminal.run import show


@click.command()
@arguments
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    help="Folder that results.json is written to.  [default: none]",
)
def check(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    as_json: bool,
    reports: Path | None,
) -> None:
    """Infer which layer of LEFT is which of RIGHT, and compare them to a verdict. Exit codes as in equiv run."""
    guard(lambda: _check(Given(left, right, inputs, batch, methods), as_json, reports))


def _check(given: Given, as_json: bool, reports: Path | None) -> int:
    with working() as progress:
        found = inferred(given, progress)
        if found.covered:
            result = certified(found, None, progress)
        else:
            from equiv.backends.environment import environment
            from equiv.infer.run_inferred import without_run

            verdict, headline = without_run(found)
            result = RunResult(verdict, headline, environment(), (), datetime.now(UTC).isoformat(), found.seconds)
    if reports is not None:
        write(reports / "results.json", encode(result), "Give another folder with --reports.")
        click.echo(f"results: {reports / 'results.json'}", err=True)
    if as_json:
        click.echo(encode(result), nl=False)
        return exit_code(result.verdict)
    console = open_console()
    show(result, console)
    from equiv.infer.describe import doubt, remarks

    doubts = [doubt(found)] if result.verdict == "different" and found.complete else []
    for line in (*remarks(found), *doubts):
        console.print(line, soft_wrap=True, markup=False)
    return exit_code(result.verdict)
