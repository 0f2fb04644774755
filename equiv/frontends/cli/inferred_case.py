"""What `equiv map`, `check` and `new` share: the two builders, the batch, and the inferred map between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equiv.core.batch_spec import BatchTree
from equiv.core.files import write_file
from equiv.core.method_call import read_calls
from equiv.errors import EquivError

if TYPE_CHECKING:
    from equiv.infer.session import InferredLayers


@dataclass(frozen=True)
class BuilderArguments:
    """The arguments of a command.

    Attributes:
        left: the reference's builder, `module:attribute` or `file.py:function`.
        right: the candidate's, likewise.
        inputs: batch entries as given.
        batch: a function that returns a batch, likewise.
        methods: public methods as given.
    """

    left: str
    right: str
    inputs: tuple[str, ...] = ()
    batch: str | None = None
    methods: tuple[str, ...] = field(default=())


def builder_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that all three commands take."""
    for decorate in (
        click.option(
            "--method",
            "methods",
            multiple=True,
            metavar="CALL",
            help="Compare a public method, called with these inputs and constants: 'encode(x)', "
            "'__call__(x, train=True, cache=None)'.  [default: __call__ with all inputs]",
        ),
        click.option("--batch", metavar="PLACE", help="Call this function for the batch, instead of --input."),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="[NAME=]SPEC",
            help="Add a batch entry: 'float32[8,784]', 'tokens=int32[8,16]:1000' with an upper bound.",
        ),
        click.argument("right", metavar="RIGHT"),
        click.argument("left", metavar="LEFT"),
    ):
        function = decorate(function)
    return function


def parse_inputs(inputs: Sequence[str]) -> dict[str, str]:
    """Parse batch entries, name to spec; the first without a name is `x`.

    Raises:
        EquivError: no entry, or two of one name.
    """
    if not inputs:
        raise EquivError(
            "no batch: nothing can be traced.", fix="Give --input 'float32[8,784]' or --batch file.py:function."
        )
    found: dict[str, str] = {}
    for number, given in enumerate(inputs):
        name, equals, spec = given.partition("=")
        name, spec = (name.strip(), spec) if equals else (f"x{number or ''}", given)
        if not name.isidentifier():
            raise EquivError(f"--input {given!r}: {name!r} is not an identifier.", fix="Write name=float32[8,784].")
        if name in found:
            raise EquivError(f"--input {given!r}: {name} is given twice, first as {found[name]!r}.", fix="Rename one.")
        found[name] = spec.strip()
    return found


def check_methods(given: Sequence[str]) -> tuple[str, ...] | None:
    """Check that the calls of public methods can be read; None where none is given.

    Raises:
        CaseError: one cannot.
    """
    read_calls(given, "--method")
    return tuple(given) or None


def infer_map(given: BuilderArguments, progress: Callable[[str], None]) -> "InferredLayers":
    """Infer the map between two builders.

    Raises:
        EquivError: they, or their batch, cannot be used.
    """
    from equiv.frontends.functions import infer_layers

    progress("reading both ports")
    return infer_layers(given.left, given.right, batch=read_batch(given), methods=check_methods(given.methods))


def read_batch(given: BuilderArguments) -> dict[str, BatchTree]:
    """Read the entries of the batch, name to spec.

    Raises:
        EquivError: there are none, or they cannot be read.
    """
    from equiv.infer.import_path import read_batch_specs

    if given.batch and given.inputs:
        raise EquivError(f"--batch {given.batch} and --input {given.inputs[0]!r} are both given.", fix="Leave one out.")
    return read_batch_specs(given.batch) if given.batch else dict[str, BatchTree](parse_inputs(given.inputs))


def write_case(found: "InferredLayers", path: Path) -> None:
    """Write the case file.

    Raises:
        EquivError: it cannot be written.
    """
    from equiv.infer.table.case_writer import case_text

    write_file(path, case_text(found.draft, path.resolve().parent).encode(), "Give another file with -o.")
