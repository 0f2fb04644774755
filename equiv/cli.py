"""The command line. Exit codes as in `diff`: 0 same, 1 different, 2 trouble, 3 inconclusive."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from equiv.errors import EquivError, told
from equiv.load import CaseFile, find, load
from equiv.report.markdown import markdown
from equiv.report.terminal import show
from equiv.results import CaseResult, RunResult, encode, read
from equiv.summary import exit_code

if TYPE_CHECKING:
    from equiv.run import Progress as Report

TROUBLE = 2
PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
EXPRESSION = click.option("-k", "expression", default="", help='Only cases whose name fits, e.g. "dropout or rnn".')


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="equiv")
def main() -> None:
    """Show that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""


def guard(function: Callable[[], int]) -> None:
    """Leave with a command's exit code; an error is one message, not a traceback, whose exit code would be 1."""
    try:
        sys.exit(function())
    except EquivError as error:
        click.echo(f"equiv: {error}", err=True)
    except KeyboardInterrupt:
        click.echo("equiv: interrupted", err=True)
    except Exception as error:  # noqa: BLE001 - 1 would say that a port differs
        click.echo(f"equiv: failed with {told(error)}. Please report it with the command.", err=True)
    sys.exit(TROUBLE)


def _console(stderr: bool = False) -> Console:
    """Without any escape codes where NO_COLOR is set, bold and dim included."""
    return Console(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


@main.command()
@PATHS
@EXPRESSION
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
@click.option("--prove-only", is_flag=True, help="Prove what can be proved and run nothing.")
@click.option("--explain-budget", is_flag=True, help="Say for every check where its budget comes from.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder that results.json is written to.",
)
def run(
    paths: tuple[Path, ...], expression: str, as_json: bool, prove_only: bool, explain_budget: bool, reports: Path
) -> None:
    """Compare every case under PATHS (default: cases) and give a verdict."""

    def print_result(result: RunResult) -> None:
        if as_json:
            click.echo(encode(result), nl=False)
        else:
            show(result, _console(), explain_budget)

    guard(lambda: _run(find(paths or (Path("cases"),), expression), prove_only, reports, print_result))


def _run(files: list[CaseFile], prove_only: bool, reports: Path, print_result: Callable[[RunResult], None]) -> int:
    result = _run_files(files, prove_only)
    try:
        _write(reports / "results.json", encode(result), "Give another folder with --reports.")
        written = f"results: {reports / 'results.json'}"
        code = exit_code(result.verdict)
    except EquivError as error:
        written, code = f"equiv: {error}", TROUBLE
    print_result(result)
    click.echo(written, err=True)
    return code


def _run_files(files: list[CaseFile], prove_only: bool) -> RunResult:
    started, clock = datetime.now(UTC), time.perf_counter()
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    finished: list[CaseResult] = []
    console = _console(stderr=True)
    # What a case prints is no result.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=len(files))
        from equiv.environment import environment
        from equiv.run import conclude, run_cases

        environment()  # without a device there is nothing to begin with
        report: Report = lambda text: bar.update(task, description=text)  # noqa: E731
        try:
            for case in run_cases(files, report, prove_only):
                finished.append(case)
                bar.advance(task)
        except KeyboardInterrupt:
            # What is finished is kept; the rest is said to be missing.
            for file in files[len(finished) :]:
                finished.append(CaseResult(file.name, "", "", "", (), {}, (), problem="not run: interrupted"))
    return conclude(finished, started, time.perf_counter() - clock)


def _write(path: Path, data: bytes, mend: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise EquivError(f"{path}: cannot be written: {error.strerror}. {mend}") from error


@main.command("list")
@PATHS
@EXPRESSION
def list_cases(paths: tuple[Path, ...], expression: str) -> None:
    """List the cases under PATHS (default: cases) with their lessons."""
    guard(lambda: _list(paths or (Path("cases"),), expression))


def _list(paths: tuple[Path, ...], expression: str) -> int:
    table, trouble = Table(box=None, pad_edge=False, header_style="bold"), False
    for heading in ("case", "models", "lesson"):
        table.add_column(heading)
    for file in find(paths, expression):
        try:
            loaded = load(file)
            table.add_row(*map(escape, (loaded.name, " ".join(loaded.case.models), loaded.lesson)))
        except EquivError as error:
            trouble = True
            table.add_row(escape(file.name), "!", escape(str(error)))
    _console().print(table)
    return TROUBLE if trouble else 0


@main.command()
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
        _write(output, text.encode(), "Give another file with -o.")
    return 0


@main.command()
@PATHS
@EXPRESSION
@click.option("--json", "as_json", is_flag=True, help="Print every planted fault as JSON instead of the table.")
@click.option("--fresh", is_flag=True, help="With fresh leaves and a batch of ones, to see how many fewer are noticed.")
def selfcheck(paths: tuple[Path, ...], expression: str, as_json: bool, fresh: bool) -> None:
    """Plant faults in every candidate under PATHS (default: cases): exit code 1 if one is not noticed."""
    guard(lambda: _selfcheck(find(paths or (Path("cases"),), expression), as_json, fresh))


def _selfcheck(files: list[CaseFile], as_json: bool, fresh: bool) -> int:
    from equiv import kills
    from equiv.report.matrix import show_matrix

    done = []
    with redirect_stdout(sys.stderr), _console(stderr=True).status("importing jax") as status:
        from equiv.environment import environment
        from equiv.selfcheck import selfcheck as plant

        environment()
        for file in files:
            status.update(file.name)
            try:
                done.append(plant(load(file), fresh=fresh))
            except EquivError as error:
                done.append(kills.SelfcheckResult(file.name, fresh, problem=str(error)))
    result = kills.conclude(done)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=1))
    else:
        show_matrix(result, _console())
    return kills.exit_code(result)
