"""The command line. Exit codes as in `diff`: 0 same, 1 different, 2 trouble, 3 inconclusive."""

import click

from equiv.commands.bench import bench
from equiv.commands.check import check
from equiv.commands.convert import convert
from equiv.commands.diff import diff
from equiv.commands.freeze import freeze
from equiv.commands.list import list_cases
from equiv.commands.map import map_ports
from equiv.commands.new import new
from equiv.commands.report import report
from equiv.commands.run import run
from equiv.commands.selfcheck import selfcheck


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="equiv")
def main() -> None:
    """Show that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""


for command in (run, check, map_ports, new, list_cases, selfcheck, bench, freeze, report, diff, convert):
    main.add_command(command)
