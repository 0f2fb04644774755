"""The command line. Exit codes as in `diff`: 0 same, 1 different, 2 error, 3 inconclusive."""

import click

from equiv.frontends.cli.bench import bench_command
from equiv.frontends.cli.check import check_command
from equiv.frontends.cli.convert import convert_command
from equiv.frontends.cli.diff import diff_command
from equiv.frontends.cli.freeze import freeze_command
from equiv.frontends.cli.list import list_command
from equiv.frontends.cli.locate import locate_command, minimise_command
from equiv.frontends.cli.map import map_command
from equiv.frontends.cli.new import new_command
from equiv.frontends.cli.report import report_command
from equiv.frontends.cli.run import run_command
from equiv.frontends.cli.selfcheck import selfcheck_command
from equiv.frontends.cli.verify import verify_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="equiv")
def main() -> None:
    """Show that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""


for command in (
    run_command,
    check_command,
    locate_command,
    minimise_command,
    map_command,
    new_command,
    list_command,
    selfcheck_command,
    bench_command,
    freeze_command,
    verify_command,
    report_command,
    diff_command,
    convert_command,
):
    main.add_command(command)
