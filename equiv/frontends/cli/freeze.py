"""`equiv freeze`: save a case's reference as a bundle, so that its library can be uninstalled."""

from pathlib import Path

import click

from equiv.frontends.cli.base import echo, run_and_exit, show_status


@click.command("freeze")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the bundle to this file; default: NAME.equiv."
)
@click.option("--port", default="", help="Save this model of the case.  [default: the first]")
def freeze_command(path: Path, output: Path | None, port: str) -> None:
    """Save a model of the case PATH as a bundle for `equiv run --against`, which may run on newer releases."""
    run_and_exit(lambda: _write_bundle(path, output, port))


def _write_bundle(path: Path, output: Path | None, port: str) -> int:
    output = output or Path(f"{path.stem}.equiv")
    with show_status() as progress:
        from equiv.frontends.functions import freeze

        frozen = freeze(path, output, port=port, progress=progress)
    unnoticed = [trial.title for trial in frozen.sensitivity if not trial.detected]
    content = f"{len(frozen.leaves)} leaves, {len(frozen.probes)} probes, {len(frozen.edges)} edge probes"
    echo(f"✓ {output}: {frozen.port} of {frozen.case}, {content}, {output.stat().st_size / 1e6:.3g} MB")
    if frozen.edges_refused:
        echo(f"! {frozen.port} was not run beyond ordinary values: {frozen.edges_refused}", err=True)
    for title in unnoticed:
        echo(f"? {title}: noticed by no probe")
    for pair in frozen.reused:
        echo(f"! {frozen.port} uses one key twice: {pair.program}: {pair.text}", err=True)
    return 0
