"""What all commands share: the way out, the console, files."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from equiv.errors import EquivError, told

TROUBLE = 2


COLLECT_EVERY = 200_000, 50, 100
"""Thresholds of the garbage collector: traced programs are many small objects that stay; looking through them as often
as Python does by itself takes a tenth of the time of tracing and proving."""


PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))


EXPRESSION = click.option("-k", "expression", default="", help='Only cases whose name fits, e.g. "dropout or rnn".')


def guard(function: Callable[[], int]) -> None:
    """Leave with a command's exit code; an error is one message, not a traceback, whose exit code would be 1."""
    gc.set_threshold(*COLLECT_EVERY)
    try:
        sys.exit(function())
    except EquivError as error:
        click.echo(f"equiv: {error}", err=True)
    except KeyboardInterrupt:
        click.echo("equiv: interrupted", err=True)
    except Exception as error:  # noqa: BLE001 - 1 would say that a port differs
        click.echo(f"equiv: failed with {told(error)}. Please report it with the command.", err=True)
    sys.exit(TROUBLE)


def open_console(stderr: bool = False) -> Console:
    """Without any escape codes where NO_COLOR is set, bold and dim included."""
    return Console(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


def write(path: Path, data: bytes, mend: str) -> None:
    """Write a file and the folders above it.

    Raises:
        EquivError: it cannot be written; `mend` is the fix.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise EquivError(f"{path}: cannot be written: {error.strerror}. {mend}") from error
