"""What all commands share: arguments, exit codes, the console, progress, files."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from equiv.core.printable import printable
from equiv.errors import EquivError, error_summary
from equiv.frontends.cli.interrupts import interruptible
from equiv.report.terminal.safe_console import SafeConsole
from equiv.running.worker import GC_THRESHOLDS

EXIT_TROUBLE = 2

PATHS_ARGUMENT = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))

EXPRESSION_OPTION = click.option(
    "-k", "expression", default="", help='Run only cases whose name matches, e.g. "dropout or rnn".'
)


def run_and_exit(function: Callable[[], int]) -> None:
    """Run a command and exit with its code; an error is printed without a traceback, with exit code 2.

    What cannot be printed, on a full disk or into a pipe that nobody reads, is an error too, and so is a model that
    ends the program.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with interruptible(), _no_exit():
            code = function()
            sys.stdout.flush()  # at the exit it would be too late for an exit code
    except EquivError as error:
        problem = f"equiv: {error}"
    except KeyboardInterrupt:
        problem = "equiv: interrupted"
    except OSError as error:
        problem = f"equiv: the output cannot be printed: {error_summary(error)}."
        _discard_output()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - exit code 1 would mean that a port differs
        problem = f"equiv: failed with {error_summary(error)}. Please report it with the command."
    else:
        sys.exit(code)
    with suppress(OSError):  # nobody reads what went wrong, but the exit code says it
        echo(problem, err=True)
    sys.exit(EXIT_TROUBLE)


@contextmanager
def _no_exit() -> Iterator[None]:
    """Within it `os._exit` raises: a model that calls it would choose the exit code, and nothing would be printed."""
    before, here = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:  # a fork has to end like this
            before(status)
        raise SystemExit(f"os._exit({status}) was called")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = before


def _discard_output() -> None:
    """Write nothing more to standard output: Python would try again at its exit, and then choose the exit code."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def echo(text: str | bytes, err: bool = False, nl: bool = True) -> None:
    """Print a text without its control characters; bytes, such as JSON that has none, as they are."""
    click.echo(printable(text) if isinstance(text, str) else text, err=err, nl=nl)


def open_console(stderr: bool = False) -> Console:
    """Open a console; where NO_COLOR is set, without any escape codes, bold and dim included."""
    return SafeConsole(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


@contextmanager
def show_status() -> Iterator[Callable[[str], None]]:
    """Show what is being done on standard error; what a case or a builder prints goes there too."""
    with redirect_stdout(sys.stderr), open_console(stderr=True).status("importing jax") as status:
        yield lambda text: status.update(Text(printable(text)))
