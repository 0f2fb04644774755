"""`equiv freeze`: save a case's reference as a bundle, so that its library can be uninstalled."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from equiv.core.case_files import find_case_files, load_case
from equiv.errors import EquivError
from equiv.frontends.cli.base import EXIT_TROUBLE, open_console, run_and_exit, write_file


@click.command("freeze")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the bundle to this file; default: NAME.equiv."
)
def freeze_command(path: Path, output: Path | None) -> None:
    """Save the first model of the case PATH as a bundle for `equiv run --against`."""
    run_and_exit(lambda: _write_bundle(path, output))


def _write_bundle(path: Path, output: Path | None) -> int:
    files = find_case_files((path,))
    if len(files) != 1:
        raise EquivError(f"{path}: holds {len(files)} cases; one is frozen at a time. Give a case file.")
    with redirect_stdout(sys.stderr), open_console(stderr=True).status("importing jax") as status:
        from equiv.comparison.frozen.bundle import encode_bundle
        from equiv.comparison.frozen.freeze import freeze_reference as keep

        frozen = keep(load_case(files[0], least_models=1), status.update)
    output = output or Path(f"{files[0].path.stem}.equiv")
    write_file(output, encode_bundle(frozen), "Give another file with -o.")
    unnoticed = [trial.title for trial in frozen.sensitivity if not trial.detected]
    click.echo(f"✓ {output}: {frozen.port} of {frozen.case}, {len(frozen.leaves)} leaves, {len(frozen.probes)} probes")
    for title in unnoticed:
        click.echo(f"? {title}: noticed by no probe")
    for pair in frozen.reused:
        click.echo(f"! {frozen.port} draws the same bits twice: {pair}", err=True)
    return EXIT_TROUBLE if frozen.reused else 0
