"""`equiv run`: compare cases and give a verdict."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.checks import read_checks
from equiv.core.files import write_file
from equiv.core.printable import printable
from equiv.core.results import CaseResult, RunResult
from equiv.core.results_json import encode_results
from equiv.core.verdict import verdict_exit_code
from equiv.errors import EquivError
from equiv.frontends.arguments import parse_jobs, parse_memory
from equiv.frontends.cli.base import (
    EXIT_TROUBLE,
    EXPRESSION_OPTION,
    PATHS_ARGUMENT,
    echo,
    open_console,
    run_and_exit,
)
from equiv.frontends.run import run
from equiv.report.terminal.run import print_run
from equiv.running.run_tasks import Place
from equiv.running.task import Limits


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
@click.option(
    "--certificates",
    type=click.Path(path_type=Path),
    help="Write every candidate's proofs to this folder, as files for equiv verify.",
)
@click.option("--checks", metavar="NAME,...", help="Make only these checks.  [default: those that each case asks for]")
@click.option("--explain-budget", is_flag=True, help="Print for every check how its budget is derived.")
@click.option("--html", is_flag=True, help="Also write parity.html next to results.json.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Write results.json, parity.html and the journal to this folder.",
)
@click.option("-n", "--jobs", default="1", show_default=True, help="Run in so many processes at once; auto: what fits.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Stop a case after this many seconds.")
@click.option("--memory", help="Stop a case whose process takes more than this, e.g. 4GB.")
@click.option("--resume", is_flag=True, help="Run only what has no verdict in the journal, or has changed since.")
@click.option("--shard", metavar="K/N", help="Run the k-th of n parts of the cases.")
@click.option(
    "--scheduler", metavar="URL", default="", help="Run on the Dask cluster of this scheduler: tcp://HOST:8786."
)
@click.option(
    "--isolate/--no-isolate",
    default=True,
    envvar="EQUIV_ISOLATE",
    show_default=True,
    help="Run cases in a process that may die, or in this one, e.g. for a debugger.",
)
def run_command(paths: tuple[Path, ...], expression: str, as_json: bool, html: bool, **given: Any) -> None:
    """Compare every case under PATHS (default: cases) and give a verdict."""
    explain, reports = given.pop("explain_budget"), given.pop("reports")

    def print_result(result: RunResult) -> None:
        if as_json:
            echo(encode_results(result), nl=False)
        else:
            print_run(result, open_console(), explain)

    def run_files() -> RunResult:
        given["checks"] = read_checks(given["checks"]) if given["checks"] is not None else ()
        limits = Limits(given.pop("timeout"), parse_memory(given.pop("memory")))
        isolated, scheduler = given.pop("isolate"), given.pop("scheduler")
        place = Place(isolated, parse_jobs(given.pop("jobs")), scheduler, limits)
        return _run_files(paths or (Path("cases"),), expression, {**given, "place": place, "journal": reports})

    run_and_exit(lambda: _write_result(run_files, reports, html, print_result))


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
        # What is known to be wrong with the run as a whole is never a pass.
        code = EXIT_TROUBLE if result.problems else verdict_exit_code(result.verdict)
    except EquivError as error:
        written, code = f"equiv: {error}", EXIT_TROUBLE
    print_result(result)
    echo(written, err=True)
    return code


def _run_files(paths: tuple[Path, ...], expression: str, options: Mapping[str, Any]) -> RunResult:
    """Run every case with a bar of the progress; `options` are those of `equiv.run`."""
    stage = TextColumn("{task.description:40}", markup=False)
    console = open_console(stderr=True)
    certified: list[str] = []
    # What a case prints is not part of the results.
    with (
        redirect_stdout(sys.stderr),
        Progress(
            *(stage, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar,
    ):
        task = bar.add_task("importing jax", total=None)

        def count(total: int, resumed: int) -> None:
            bar.update(task, total=total)
            if options["resume"]:
                certified.append(f"resumed: {resumed} of {total} cases have a verdict already")

        def finish(case: CaseResult) -> None:
            bar.advance(task)
            if case.problem and console.is_terminal:
                console.print(f"! {case.name}: {case.problem}", markup=False, soft_wrap=True)

        result = run(
            paths,
            expression,
            **options,
            progress=lambda text: bar.update(task, description=printable(text)),
            finished=finish,
            certified=lambda path, certificate: certified.extend(_describe_certificate(path, certificate)),
            counted=count,
        )
    for line in certified:
        echo(line, err=True)
    return result


def _describe_certificate(path: Path, certificate: Any) -> Iterator[str]:
    """What of a candidate's proofs is in its certificate, and what is not."""
    certified = certificate.proved - len(certificate.left_out)
    yield f"certificate: {path}: {certified} of {certificate.proved} proofs"
    for reason, outputs in Counter(certificate.left_out.values()).items():
        yield f"  not certified: {outputs} {'proof' if outputs == 1 else 'proofs'}: {reason}"
