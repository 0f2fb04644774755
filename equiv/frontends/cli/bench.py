"""`equiv bench`: what each port costs."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.case_files import CaseFile, find_case_files
from equiv.core.files import write_file
from equiv.core.printable import printable
from equiv.core.releases import check_releases
from equiv.core.results import RunResult
from equiv.core.results_json import encode_results, read_results
from equiv.core.verdict import verdict_exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import (
    EXIT_TROUBLE,
    EXPRESSION_OPTION,
    PATHS_ARGUMENT,
    echo,
    open_console,
    run_and_exit,
)
from equiv.report.terminal.timings import print_bench


@click.command("bench")
@PATHS_ARGUMENT
@EXPRESSION_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the tables.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Time to spend on each case, in seconds; a large case takes longer.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Take verdicts from this results.json for unchanged cases; other cases are run first.",
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Write results.json to this folder.",
)
def bench_command(
    paths: tuple[Path, ...], expression: str, as_json: bool, seconds: float, results: Path | None, reports: Path
) -> None:
    """Time every port under PATHS (default: cases) that is not refuted, against the reference and a control."""

    def run() -> int:
        check_releases()
        stored = None if results is None else read_results(results)
        result = _run_bench(find_case_files(paths or (Path("cases"),), expression), stored, seconds)
        code = EXIT_TROUBLE if result.problems else verdict_exit_code(result.verdict)
        try:
            write_file(reports / "results.json", encode_results(result), "Give another folder with --reports.")
            written = f"results: {reports / 'results.json'}"
        except EquivError as error:
            written, code = f"equiv: {error}", EXIT_TROUBLE
        if as_json:
            echo(encode_results(result), nl=False)
        else:
            print_bench(result, open_console())
        echo(written, err=True)
        return code

    run_and_exit(run)


def _run_bench(files: list[CaseFile], stored: RunResult | None, seconds: float) -> RunResult:
    columns = (
        TextColumn("{task.description:40}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = open_console(stderr=True)
    # What a case prints is not part of the results.
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
            lambda text: bar.update(task, description=printable(text)),
            lambda: bar.advance(task),
        )
