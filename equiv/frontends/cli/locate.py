"""`equiv locate` and `equiv minimise`: every place where a case differs, and a file that shows one of them alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from equiv.core.printable import escape_json
from equiv.core.verdict import worst_exit_code
from equiv.errors import EquivError
from equiv.frontends.cli.base import echo, run_and_exit, show_status
from equiv.frontends.cli.inferred_case import BuilderArguments, model_options
from equiv.running.compile_cache import keep_compiled_here

if TYPE_CHECKING:
    from equiv.core.case_files import LoadedCase

PLACES = click.argument("places", nargs=-1, required=True, metavar="CASE | LEFT RIGHT")


@dataclass(frozen=True)
class Compared:
    """What is compared: a case file, or two models as for `equiv check`.

    Attributes:
        places: the file, or both builders.
        options: those of `equiv check`.
    """

    places: tuple[str, ...]
    options: dict[str, Any]

    def load(self, progress: Callable[[str], None]) -> "LoadedCase":
        """Load the case, or infer it.

        Raises:
            EquivError: arguments cannot be used.
        """
        if len(self.places) == 1:
            if any(self.options.values()):
                raise EquivError("--input, --batch, --method and --keep are in the case.", fix="Leave them out.")
            from equiv.frontends.locate import load_case_file

            return load_case_file(Path(self.places[0]))
        if len(self.places) != 2:
            raise EquivError(f"{len(self.places)} arguments.", fix="Give one case file, or LEFT and RIGHT.")
        case = BuilderArguments(*self.places, **self.options).read_case()
        from equiv.frontends.locate import load_models

        return load_models(*self.places, case, progress)


@click.command("locate")
@PLACES
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the places as JSON instead of sentences.")
def locate_command(places: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Print every place where a case, or two models, differ: layer, lines, values, and the causes that were tried.

    Exit codes are those of equiv run.
    """
    run_and_exit(lambda: _locate(Compared(places, options), as_json))


def _locate(compared: Compared, as_json: bool) -> int:
    with keep_compiled_here(), show_status() as progress:
        loaded = compared.load(progress)
        from equiv.frontends.locate import locate

        found = locate(loaded, progress)
    if as_json:
        echo(escape_json(msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=1)))
        return worst_exit_code([one.verdict for one in found.candidates])
    from equiv.report.findings.located import describe_located

    for line in describe_located(found):
        echo(line)
    return worst_exit_code([one.verdict for one in found.candidates])


@click.command("minimise")
@PLACES
@model_options
@click.option("--candidate", default="", metavar="NAME", help="Reproduce this port's difference.  [default: the first]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Write repro.py and repro.npz to this folder.  [default: the working folder]",
)
def minimise_command(places: tuple[str, ...], candidate: str, out: Path, **options: Any) -> None:
    """Write the smallest repro.py of where a case, or two models, differ: it needs jax and numpy alone.

    Exit codes: 0 the same, nothing is written; 1 written; 2 an error, or what differs cannot be written as code.
    """
    run_and_exit(lambda: _minimise(Compared(places, options), candidate, out))


def _minimise(compared: Compared, candidate: str, out: Path) -> int:
    with keep_compiled_here(), show_status() as progress:
        loaded = compared.load(progress)
        from equiv.comparison.located import ReproducedDifference
        from equiv.frontends.locate import ARCHIVE, SCRIPT, minimise

        found = minimise(loaded, out, candidate, progress)
    if not isinstance(found, ReproducedDifference):
        verdicts = ", ".join(f"{name} {verdict}" for name, verdict in found.items())
        echo(f"{loaded.name}: {verdicts}: there is no difference to reproduce, and nothing was written")
        return worst_exit_code(list(found.values()))
    ours, theirs = found.made.operations
    echo(
        f"{out / SCRIPT}: {found.candidate} differs from {found.reference} in {found.located.program}: {theirs} "
        f"{'operation' if theirs == 1 else 'operations'} for {ours}"
    )
    if found.made.functions.arrays:
        echo(f"{out / ARCHIVE}: what both are given")
    return worst_exit_code(["different"])
