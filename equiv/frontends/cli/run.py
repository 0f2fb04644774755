"""`equiv run`: compare cases and give a verdict."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.case_files import CaseFile, find_case_files
from equiv.core.results import CaseResult, RunResult
from equiv.core.results_json import encode_results
from equiv.core.verdict import verdict_exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import (
    EXIT_TROUBLE,
    EXPRESSION_OPTION,
    PATHS_ARGUMENT,
    open_console,
    run_and_exit,
    write_file,
)
from equiv.report.terminal.run import print_run

if TYPE_CHECKING:
    from equiv.comparison.frozen.bundle import FrozenReference
    from equiv.comparison.state import ReportStage


@click.command("run")
@PATHS_ARGUMENT
@EXPRESSION_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
@click.option("--prove-only", is_flag=True, help="Prove what can be proved, and run nothing.")
@click.option("--selfcheck", is_flag=True, help="Also plant faults in every candidate, and print which are noticed.")
@click.option("--initial", is_flag=True, help="Also compare the distributions of initial parameter values.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Compare with this bundle of equiv freeze instead of the reference.",
)
@click.option("--explain-budget", is_flag=True, help="Print for every check how its budget is derived.")
@click.option("--html", is_flag=True, help="Also write parity.html next to results.json.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Write results.json and parity.html to this folder.",
)
def run_command(
    paths: tuple[Path, ...],
    expression: str,
    as_json: bool,
    prove_only: bool,
    selfcheck: bool,
    initial: bool,
    against: Path | None,
    explain_budget: bool,
    html: bool,
    reports: Path,
) -> None:
    """Compare every case under PATHS (default: cases) and give a verdict."""

    def print_result(result: RunResult) -> None:
        if as_json:
            click.echo(encode_results(result), nl=False)
        else:
            print_run(result, open_console(), explain_budget)

    def run_files() -> RunResult:
        files = find_case_files(paths or (Path("cases"),), expression)
        if against is None:
            return _run_files(files, {"prove_only": prove_only, "faults": selfcheck, "initial_values": initial})
        if prove_only or selfcheck or initial:
            raise EquivError("--against runs without --prove-only, --selfcheck and --initial. Leave them out.")
        from equiv.comparison.frozen.bundle import read_bundle

        frozen = read_bundle(against)
        return _run_files(_frozen_case(files, frozen), {"against": frozen})

    run_and_exit(lambda: _write_result(run_files, reports, html, print_result))


def _frozen_case(files: list[CaseFile], frozen: "FrozenReference") -> list[CaseFile]:
    """Find the case that was frozen; a single file is taken whatever its name."""
    found = files if len(files) == 1 else [file for file in files if file.name == frozen.case]
    if len(found) != 1:
        raise EquivError(f"none of {len(files)} cases is {frozen.case!r}, of which the bundle was made. Give its file.")
    return found


def _write_result(
    run_files: Callable[[], RunResult], reports: Path, html: bool, print_result: Callable[[RunResult], None]
) -> int:
    result = run_files()
    fix = "Give another folder with --reports."
    try:
        write_file(reports / "results.json", encode_results(result), fix)
        written = f"results: {reports / 'results.json'}"
        if html:
            from equiv.report.html.page import render_page  # templates and plots: only where they are asked for

            write_file(reports / "parity.html", render_page([result]).encode(), fix)
            written += f"\nreport: {reports / 'parity.html'}"
        code = verdict_exit_code(result.verdict)
    except EquivError as error:
        written, code = f"equiv: {error}", EXIT_TROUBLE
    print_result(result)
    click.echo(written, err=True)
    return code


def _run_files(files: list[CaseFile], options: Mapping[str, Any]) -> RunResult:
    """Run every case; `options` holds the fields of `equiv.comparison.pipeline.RunOptions`."""
    started, clock = datetime.now(UTC), time.perf_counter()
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    finished: list[CaseResult] = []
    console = open_console(stderr=True)
    # What a case prints is not part of the results.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=len(files))
        from equiv.backends.environment import describe_environment
        from equiv.comparison.pipeline import RunOptions, make_run_result, run_cases

        describe_environment()  # fails early where there is no device
        report: ReportStage = lambda text: bar.update(task, description=text)  # noqa: E731
        try:
            for case in run_cases(files, report, RunOptions(**options)):
                finished.append(case)
                bar.advance(task)
        except KeyboardInterrupt:
            # Finished cases are kept; the others are recorded as missing.
            for file in files[len(finished) :]:
                finished.append(CaseResult(file.name, "", "", "", (), {}, (), problem="not run: interrupted"))
    return make_run_result(finished, started, time.perf_counter() - clock)
