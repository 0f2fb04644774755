"""What all commands share: arguments, exit codes, the console, files."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from equiv.errors import EquivError, error_summary

EXIT_TROUBLE = 2

GC_THRESHOLDS = 200_000, 50, 100
"""Thresholds of the garbage collector: traced programs are many small objects that stay; with Python's own
thresholds, collection takes a tenth of the time of tracing and proving."""

PATHS_ARGUMENT = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))

EXPRESSION_OPTION = click.option(
    "-k", "expression", default="", help='Run only cases whose name matches, e.g. "dropout or rnn".'
)


def run_and_exit(function: Callable[[], int]) -> None:
    """Run a command and exit with its code; an error is printed without a traceback, with exit code 2."""
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        sys.exit(function())
    except EquivError as error:
        click.echo(f"equiv: {error}", err=True)
    except KeyboardInterrupt:
        click.echo("equiv: interrupted", err=True)
    except Exception as error:  # noqa: BLE001 - exit code 1 would mean that a port differs
        click.echo(f"equiv: failed with {error_summary(error)}. Please report it with the command.", err=True)
    sys.exit(EXIT_TROUBLE)


def open_console(stderr: bool = False) -> Console:
    """Open a console; where NO_COLOR is set, without any escape codes, bold and dim included."""
    return Console(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
