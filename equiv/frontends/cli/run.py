"""`equiv run`: compare cases and give a verdict."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from equiv.core.case_files import find_case_files
from equiv.core.results import RunResult
from equiv.core.results_json import encode_results
from equiv.core.verdict import verdict_exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import (
    EXIT_TROUBLE,
    EXPRESSION_OPTION,
    PATHS_ARGUMENT,
    open_console,
    run_and_exit,
)
from equiv.frontends.files import write_file
from equiv.report.terminal.run import print_run


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
    certificates: Path | None,
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

    options = {"prove_only": prove_only, "selfcheck": selfcheck, "initial": initial, "against": against}
    options["certificates"] = certificates
    given = paths or (Path("cases"),)
    run_and_exit(lambda: _write_result(partial(_run_files, given, expression, options), reports, html, print_result))


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


def _run_files(paths: tuple[Path, ...], expression: str, options: Mapping[str, Any]) -> RunResult:
    """Run every case with a bar of the progress; `options` are those of `equiv.run`."""
    files = find_case_files(paths, expression)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = open_console(stderr=True)
    # What a case prints is not part of the results.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=1 if options["against"] else len(files))
        from equiv.frontends.functions import run

        certified: list[str] = []
        result = run(
            paths,
            expression,
            **options,
            progress=lambda text: bar.update(task, description=text),
            finished=lambda _: bar.advance(task),
            certified=lambda path, certificate: certified.extend(_describe_certificate(path, certificate)),
        )
    for line in certified:
        click.echo(line, err=True)
    return result


def _describe_certificate(path: Path, certificate: Any) -> Iterator[str]:
    """What of a candidate's proofs is in its certificate, and what is not."""
    certified = certificate.proved - len(certificate.left_out)
    yield f"certificate: {path}: {certified} of {certificate.proved} proofs"
    for reason, outputs in Counter(certificate.left_out.values()).items():
        yield f"  not certified: {outputs} {'proof' if outputs == 1 else 'proofs'}: {reason}"
