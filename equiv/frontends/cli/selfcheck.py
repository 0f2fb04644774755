"""`equiv selfcheck`: would a fault be noticed?"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
import msgspec

from equiv.core.case_files import CaseFile, find, load
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXPRESSION, PATHS, guard, open_console


@click.command()
@PATHS
@EXPRESSION
@click.option("--json", "as_json", is_flag=True, help="Print every planted fault as JSON instead of the table.")
@click.option("--fresh", is_flag=True, help="With fresh leaves and a batch of ones, to see how many fewer are noticed.")
def selfcheck(paths: tuple[Path, ...], expression: str, as_json: bool, fresh: bool) -> None:
    """Plant faults in every candidate under PATHS (default: cases): exit code 1 if one is not noticed."""
    guard(lambda: _selfcheck(find(paths or (Path("cases"),), expression), as_json, fresh))


def _selfcheck(files: list[CaseFile], as_json: bool, fresh: bool) -> int:
    from equiv.core import selfcheck_results as kills
    from equiv.report.terminal.selfcheck import show_matrix

    done = []
    with redirect_stdout(sys.stderr), open_console(stderr=True).status("importing jax") as status:
        from equiv.backends.environment import environment
        from equiv.compare.selfcheck.selfcheck import selfcheck as plant

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
        show_matrix(result, open_console())
    return kills.exit_code(result)
