"""`equiv freeze`: a case's reference to a bundle, so that its library can be uninstalled."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from equiv.core.case_files import find, load
from equiv.errors import EquivError
from equiv.frontends.cli.base import TROUBLE, guard, open_console, write


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle to write; default: NAME.equiv.")
def freeze(path: Path, output: Path | None) -> None:
    """Keep the first model of the case PATH as a bundle for `equiv run --against`."""
    guard(lambda: _freeze(path, output))


def _freeze(path: Path, output: Path | None) -> int:
    files = find((path,))
    if len(files) != 1:
        raise EquivError(f"{path}: holds {len(files)} cases; one is frozen at a time. Give a case file.")
    with redirect_stdout(sys.stderr), open_console(stderr=True).status("importing jax") as status:
        from equiv.compare.frozen.bundle import encode
        from equiv.compare.frozen.freeze import freeze as keep

        frozen = keep(load(files[0]), status.update)
    output = output or Path(f"{files[0].path.stem}.equiv")
    write(output, encode(frozen), "Give another file with -o.")
    blind = [finding.place for finding in frozen.told if finding.grade == "unidentifiable"]
    click.echo(
        f"✓ {output}: {frozen.backend} of {frozen.case}, {len(frozen.leaves)} leaves, {len(frozen.probes)} probes"
    )
    for place in blind:
        click.echo(f"? {place}: no probe tells")
    for pair in frozen.reused:
        click.echo(f"! {frozen.backend} draws the same bits twice: {pair}", err=True)
    return TROUBLE if frozen.reused else 0
