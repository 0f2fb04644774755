"""`equiv run`: cases to a verdict."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.case_files import CaseFile, find
from equiv.core.results import CaseResult, RunResult
from equiv.core.results_json import encode
from equiv.core.verdict import exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXPRESSION, PATHS, TROUBLE, guard, open_console, write
from equiv.report.terminal.run import show

if TYPE_CHECKING:
    from equiv.compare.frozen.bundle import Frozen
    from equiv.compare.pipeline import Progress as Report


@click.command()
@PATHS
@EXPRESSION
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
@click.option("--prove-only", is_flag=True, help="Prove what can be proved and run nothing.")
@click.option("--selfcheck", is_flag=True, help="Plant faults in every candidate too and say which are noticed.")
@click.option("--initial", is_flag=True, help="Compare the libraries' initial values too: what trains otherwise.")
@click.option("--against", type=click.Path(path_type=Path), help="A bundle of equiv freeze in the reference's place.")
@click.option("--explain-budget", is_flag=True, help="Say for every check where its budget comes from.")
@click.option("--html", is_flag=True, help="Write parity.html beside results.json too.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder that results.json and parity.html are written to.",
)
def run(
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
            click.echo(encode(result), nl=False)
        else:
            show(result, open_console(), explain_budget)

    def run_files() -> RunResult:
        files = find(paths or (Path("cases"),), expression)
        if against is None:
            return _run_files(files, {"prove_only": prove_only, "faults": selfcheck, "starts": initial})
        if prove_only or selfcheck or initial:
            raise EquivError("--against runs without --prove-only, --selfcheck and --initial. Leave them out.")
        from equiv.compare.frozen.bundle import read

        frozen = read(against)
        return _run_files(_case_of(files, frozen), {"against": frozen})

    guard(lambda: _run(run_files, reports, html, print_result))


def _case_of(files: list[CaseFile], frozen: "Frozen") -> list[CaseFile]:
    """The case that was frozen; a single file is taken whatever its name."""
    found = files if len(files) == 1 else [file for file in files if file.name == frozen.case]
    if len(found) != 1:
        raise EquivError(f"none of {len(files)} cases is {frozen.case!r}, which the bundle was made of. Give its file.")
    return found


def _run(
    run_files: Callable[[], RunResult], reports: Path, html: bool, print_result: Callable[[RunResult], None]
) -> int:
    result = run_files()
    mend = "Give another folder with --reports."
    try:
        write(reports / "results.json", encode(result), mend)
        written = f"results: {reports / 'results.json'}"
        if html:
            from equiv.report.html.page import page  # templates and plots: only where they are asked for

            write(reports / "parity.html", page([result]).encode(), mend)
            written += f"\nreport: {reports / 'parity.html'}"
        code = exit_code(result.verdict)
    except EquivError as error:
        written, code = f"equiv: {error}", TROUBLE
    print_result(result)
    click.echo(written, err=True)
    return code


def _run_files(files: list[CaseFile], asked: Mapping[str, Any]) -> RunResult:
    """Every case to its result; `asked` holds the fields of `equiv.compare.pipeline.Asked`."""
    started, clock = datetime.now(UTC), time.perf_counter()
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    finished: list[CaseResult] = []
    console = open_console(stderr=True)
    # What a case prints is no result.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=len(files))
        from equiv.backends.environment import environment
        from equiv.compare.pipeline import Asked, conclude, run_cases

        environment()  # without a device there is nothing to begin with
        report: Report = lambda text: bar.update(task, description=text)  # noqa: E731
        try:
            for case in run_cases(files, report, Asked(**asked)):
                finished.append(case)
                bar.advance(task)
        except KeyboardInterrupt:
            # What is finished is kept; the rest is said to be missing.
            for file in files[len(finished) :]:
                finished.append(CaseResult(file.name, "", "", "", (), {}, (), problem="not run: interrupted"))
    return conclude(finished, started, time.perf_counter() - clock)
