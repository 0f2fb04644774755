"""What `equiv map`, `check` and `new` share: the two builders, the batch, and the map between them."""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equiv.errors import EquivError
from equiv.frontends.cli.base import open_console, write

if TYPE_CHECKING:
    from equiv.core.results import RunResult
    from equiv.infer.session import Inferred


METHOD = re.compile(r"(?P<name>\w+)\((?P<entries>[\w\s,]*)\)")


@dataclass(frozen=True)
class Given:
    """The arguments of a command.

    Attributes:
        left: place of the reference's builder.
        right: place of the candidate's.
        inputs: batch entries as given.
        batch: place of a batch function.
        methods: public methods as given.
    """

    left: str
    right: str
    inputs: tuple[str, ...] = ()
    batch: str | None = None
    methods: tuple[str, ...] = field(default=())


def arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that all three commands take."""
    for decorate in (
        click.option(
            "--method",
            "methods",
            multiple=True,
            metavar="NAME(ENTRY, ...)",
            help="A public method and the batch entries it takes.  [default: __call__ with all]",
        ),
        click.option("--batch", metavar="PLACE", help="A function that returns a batch, in place of --input."),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="[NAME=]SPEC",
            help="A batch entry: 'float32[8,784]', 'tokens=int32[8,16]:1000' with an upper bound.",
        ),
        click.argument("right", metavar="RIGHT"),
        click.argument("left", metavar="LEFT"),
    ):
        function = decorate(function)
    return function


def entries(inputs: Sequence[str]) -> dict[str, str]:
    """Batch entry to its text; the first without a name is `x`.

    Raises:
        EquivError: no entry, or two of one name.
    """
    if not inputs:
        raise EquivError("no batch: nothing can be traced. Give --input 'float32[8,784]' or --batch file.py:function.")
    found: dict[str, str] = {}
    for number, given in enumerate(inputs):
        name, equals, spec = given.partition("=")
        name, spec = (name.strip(), spec) if equals else (f"x{number or ''}", given)
        if not name.isidentifier():
            raise EquivError(f"--input {given!r}: {name!r} is no name. Write name=float32[8,784].")
        if name in found:
            raise EquivError(f"--input {given!r}: {name} is given twice, first as {found[name]!r}. Rename one.")
        found[name] = spec.strip()
    return found


def methods_of(given: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Public method to batch entries.

    Raises:
        EquivError: a method that cannot be read.
    """
    found = {}
    for text in given:
        match = METHOD.fullmatch(text.strip())
        if match is None:
            raise EquivError(f"--method {text!r}: cannot be read. Write its batch entries: 'encode(x)'.")
        found[match["name"]] = tuple(name.strip() for name in match["entries"].split(",") if name.strip())
    return found or None


def inferred(given: Given, progress: Callable[[str], None]) -> "Inferred":
    """The map between two builders.

    Raises:
        EquivError: they, or their batch, cannot be used.
    """
    from equiv.backends.environment import environment
    from equiv.infer.builders import locate
    from equiv.infer.import_path import batch_of
    from equiv.infer.session import infer

    environment()
    if given.batch and given.inputs:
        raise EquivError(f"--batch {given.batch} and --input {given.inputs[0]!r} are both given. Leave one out.")
    batch = batch_of(given.batch) if given.batch else entries(given.inputs)
    progress("reading both ports")
    return infer((locate(given.left), locate(given.right)), batch, methods_of(given.methods))


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Say on standard error what is being done; what a builder prints goes there too."""
    with redirect_stdout(sys.stderr), open_console(stderr=True).status("importing jax") as status:
        yield status.update


def certified(found: "Inferred", output: Path | None, progress: Callable[[str], None]) -> "RunResult":
    """The case file, run; without `output` it is thrown away afterwards."""
    from equiv.infer.run_inferred import certify

    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "inferred.py"
        save(found, path)
        return certify(path, progress)


def save(found: "Inferred", path: Path) -> None:
    """Write the case file.

    Raises:
        EquivError: it cannot be written.
    """
    from equiv.infer.table.case_writer import text

    write(path, text(found.draft, path.resolve().parent).encode(), "Give another file with -o.")
