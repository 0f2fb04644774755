"""`equiv bench`: what each port costs."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.case_files import CaseFile, find
from equiv.core.results import RunResult
from equiv.core.results_json import encode, read
from equiv.core.verdict import exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXPRESSION, PATHS, TROUBLE, guard, open_console, write
from equiv.report.terminal.timings import show_prices


@click.command()
@PATHS
@EXPRESSION
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the tables.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="For how long each case is timed; a large one takes longer.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="A results.json whose verdicts are taken where the case's text is still the same; else it is judged first.",
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder that results.json is written to.",
)
def bench(
    paths: tuple[Path, ...], expression: str, as_json: bool, seconds: float, results: Path | None, reports: Path
) -> None:
    """Time every port under PATHS (default: cases) that is not refuted, beside the reference and a control."""

    def run() -> int:
        stored = None if results is None else read(results)
        result = _bench(find(paths or (Path("cases"),), expression), stored, seconds)
        code = TROUBLE if result.problems else exit_code(result.verdict)
        try:
            write(reports / "results.json", encode(result), "Give another folder with --reports.")
            written = f"results: {reports / 'results.json'}"
        except EquivError as error:
            written, code = f"equiv: {error}", TROUBLE
        if as_json:
            click.echo(encode(result), nl=False)
        else:
            show_prices(result, open_console())
        click.echo(written, err=True)
        return code

    guard(run)


def _bench(files: list[CaseFile], stored: RunResult | None, seconds: float) -> RunResult:
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = open_console(stderr=True)
    # What a case prints is no result.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=2 * len(files))
        from equiv.bench.session import bench_cases

        return bench_cases(
            files,
            stored,
            seconds,
            lambda text: bar.update(task, description=text),
            lambda: bar.advance(task),
        )
