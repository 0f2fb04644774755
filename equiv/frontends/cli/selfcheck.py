"""`equiv selfcheck`: plant faults and list those that are not noticed."""

from functools import partial
from pathlib import Path

import click
import msgspec

from equiv.core.case_files import CaseFile, find_case_files, load_case
from equiv.core.printable import escape_json
from equiv.core.releases import check_releases
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXPRESSION_OPTION, PATHS_ARGUMENT, echo, open_console, run_and_exit, show_status


@click.command("selfcheck")
@PATHS_ARGUMENT
@EXPRESSION_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print every planted fault as JSON instead of the table.")
@click.option("--fresh", is_flag=True, help="Use default-initialised parameters and an all-ones batch, as a baseline.")
def selfcheck_command(paths: tuple[Path, ...], expression: str, as_json: bool, fresh: bool) -> None:
    """Plant faults in every candidate under PATHS (default: cases). Exit code 1 if a fault is not noticed."""
    run_and_exit(lambda: _run_selfchecks(find_case_files(paths or (Path("cases"),), expression), as_json, fresh))


def _run_selfchecks(files: list[CaseFile], as_json: bool, fresh: bool) -> int:
    check_releases()
    from equiv.core import selfcheck_results
    from equiv.report.terminal.selfcheck import print_selfcheck

    done = []
    with show_status() as progress:
        from equiv.backends.environment import describe_environment
        from equiv.backends.patches import isolate_import
        from equiv.comparison.selfcheck.selfcheck import run_selfcheck as plant

        describe_environment()
        for file in files:
            progress(file.name)
            try:
                done.append(plant(isolate_import(partial(load_case, file)), fresh=fresh))
            except EquivError as error:
                done.append(selfcheck_results.SelfcheckResult(file.name, fresh, problem=str(error)))
    result = selfcheck_results.summarise_selfcheck(done)
    if as_json:
        echo(escape_json(msgspec.json.format(msgspec.json.encode(result), indent=1)))
    else:
        print_selfcheck(result, open_console())
    return selfcheck_results.selfcheck_exit_code(result)
