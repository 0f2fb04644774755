"""`equiv check`: compare two builders without a case file."""

from contextlib import nullcontext
from pathlib import Path

import click

from equiv.core.files import write_file
from equiv.core.results_json import encode_results
from equiv.core.verdict import verdict_exit_code
from equiv.frontends.cli.base import echo, open_console, run_and_exit, show_status
from equiv.frontends.cli.inferred_case import BuilderArguments, builder_arguments
from equiv.report.terminal.run import print_run
from equiv.running.compile_cache import keep_compiled_here


@click.command("check")
@builder_arguments
@click.option(
    "--left-python",
    metavar="PYTHON",
    default="",
    help="Read and freeze LEFT with this interpreter, of an environment with older releases and equiv.",
)
@click.option(
    "--sequence",
    "sequences",
    multiple=True,
    metavar="CALLS",
    help="Compare calls made one after the other, each given the state that the one before left, after every call: "
    "'prefill(x[:, :8]); decode(x[:, 8:9])'.",
)
@click.option(
    "--invariant",
    "invariances",
    multiple=True,
    metavar="KIND",
    help="Compare each model with itself: 'batch', rows alone with those of the batch; 'padding:mask', rows without "
    "the padding that this input of --batch leaves out.",
)
@click.option("--checks", metavar="NAME,...", help="Make only these checks.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    help="Write results.json to this folder.  [default: none]",
)
def check_command(
    left: str,
    right: str,
    inputs: tuple[str, ...],
    batch: str | None,
    methods: tuple[str, ...],
    keep: tuple[str, ...],
    sequences: tuple[str, ...],
    invariances: tuple[str, ...],
    checks: str | None,
    as_json: bool,
    reports: Path | None,
    left_python: str,
) -> None:
    """Infer which layer of LEFT corresponds to which of RIGHT, and compare them. Exit codes are those of equiv run."""
    given = BuilderArguments(left, right, inputs, batch, methods, keep, checks, sequences, invariances)
    run_and_exit(lambda: _check_builders(given, as_json, reports, left_python))


def _check_builders(given: BuilderArguments, as_json: bool, reports: Path | None, left_python: str) -> int:
    case = given.read_case()
    # Another interpreter would take over where this one keeps what it compiles.
    with nullcontext() if left_python else keep_compiled_here(), show_status() as progress:
        if left_python:
            from equiv.frontends.two_pythons import compare_across

            result, found = compare_across(given.left, left_python, given.right, case, progress)
        else:
            from equiv.frontends.functions import compare_inferred

            result, found = compare_inferred(given.left, given.right, case, progress=progress)
    if reports is not None:
        write_file(reports / "results.json", encode_results(result), "Give another folder with --reports.")
        echo(f"results: {reports / 'results.json'}", err=True)
    if as_json:
        echo(encode_results(result), nl=False)
        return verdict_exit_code(result.verdict)
    console = open_console()
    print_run(result, console)
    from equiv.infer.describe import inference_caveat, inference_remarks

    doubts = [inference_caveat(found)] if result.verdict == "different" and found.complete else []
    for line in (*inference_remarks(found), *doubts):
        console.print(line, soft_wrap=True, markup=False)
    return verdict_exit_code(result.verdict)
