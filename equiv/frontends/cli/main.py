"""The command line. Exit codes as in `diff`: 0 same, 1 different, 2 trouble, 3 inconclusive."""

import click

from equiv.frontends.cli.bench import bench
from equiv.frontends.cli.check import check
from equiv.frontends.cli.convert import convert
from equiv.frontends.cli.diff import diff
from equiv.frontends.cli.freeze import freeze
from equiv.frontends.cli.list import list_cases
from equiv.frontends.cli.map import map_ports
from equiv.frontends.cli.new import new
from equiv.frontends.cli.report import report
from equiv.frontends.cli.run import run
from equiv.frontends.cli.selfcheck import selfcheck


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="equiv")
def main() -> None:
    """Show that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""


for command in (run, check, map_ports, new, list_cases, selfcheck, bench, freeze, report, diff, convert):
    main.add_command(command)
