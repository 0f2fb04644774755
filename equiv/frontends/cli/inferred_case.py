"""What `equiv map`, `check` and `new` share: the two builders, the batch, and the inferred map between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equiv.core.batch_spec import parse_batch
from equiv.core.case import BatchInvariance, CallSequence, Case, Padding
from equiv.core.checks import INVARIANCE, read_checks
from equiv.core.files import write_file
from equiv.core.invariance_option import read_invariance
from equiv.core.method_call import read_calls, read_methods, split_calls
from equiv.errors import EquivError
from equiv.infer.import_path import ImportedBatch, parse_import_path

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
        keep: names of inputs as given, between commas.
        checks: names of checks as given, likewise; None: all.
        sequences: calls made one after the other, as given.
        invariances: what holds for each port by itself, as given.
    """

    left: str
    right: str
    inputs: tuple[str, ...] = ()
    batch: str | None = None
    methods: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    checks: str | None = None
    sequences: tuple[str, ...] = ()
    invariances: tuple[str, ...] = ()

    def read_case(self) -> Case:
        """What is asked of the models, as a case without them. Nothing is imported that takes long, or of the user's.

        Raises:
            EquivError: an argument cannot be used.
        """
        for place in (self.left, self.right, *((self.batch,) if self.batch else ())):
            parse_import_path(place)
        if self.batch and self.inputs:
            raise EquivError(
                f"--batch {self.batch} and --input {self.inputs[0]!r} are both given.", fix="Leave one out."
            )
        read_calls(self.methods, "--method")
        batch = ImportedBatch(self.batch) if self.batch else parse_inputs(self.inputs)
        keep = tuple(name.strip() for given in self.keep for name in given.split(","))
        if not callable(batch):
            parse_batch(batch, need_bounds=False)
            read_methods(self.methods, batch)
        checks = None if self.checks is None else read_checks(self.checks)
        sequences = {
            f"sequence {number}": CallSequence(split_calls(text, "--sequence"))
            for number, text in enumerate(self.sequences, 1)
        }
        invariances = self._read_invariances(checks)
        masks = (one.mask for one in invariances if isinstance(one, Padding))
        return Case(
            "",
            {},
            batch,
            (),
            methods=self.methods or None,
            sequences=sequences,
            invariances=invariances,
            keep=tuple(dict.fromkeys((*keep, *masks))),
            checks=checks,
        )

    def _read_invariances(self, checks: tuple[str, ...] | None) -> tuple[BatchInvariance | Padding, ...]:
        """What holds for each port by itself.

        Raises:
            EquivError: one is none, its mask has no values, or the check of it is not made.
        """
        found = tuple(read_invariance(text) for text in self.invariances)
        for text, one in zip(self.invariances, found, strict=True):
            if isinstance(one, Padding) and not self.batch:
                raise EquivError(
                    f"--invariant {text!r}: values of --input are random, so that nothing says which positions of "
                    f"{one.mask!r} are valid.",
                    fix="Give --batch file.py:function, which returns the mask with its values.",
                )
            if checks is not None and INVARIANCE not in checks:
                raise EquivError(
                    f"--invariant {text!r}: --checks {','.join(checks)} leaves it out.",
                    fix=f"Add {INVARIANCE} to --checks.",
                )
        return found


def builder_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that all three commands take."""
    function = model_options(function)
    return click.argument("left", metavar="LEFT")(click.argument("right", metavar="RIGHT")(function))


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how two models are called."""
    for decorate in (
        click.option(
            "--method",
            "methods",
            multiple=True,
            metavar="CALL",
            help="Compare a public method, called with these inputs and constants: 'encode(x)', "
            "'__call__(x, train=True, cache=None)'.  [default: __call__ with all inputs]",
        ),
        click.option(
            "--keep",
            multiple=True,
            metavar="NAME,...",
            help="Keep the values that --batch gives these inputs, such as a mask.  [default: random values]",
        ),
        click.option(
            "--batch",
            metavar="PLACE",
            help="Call this function for the batch, instead of --input: its shapes and dtypes, and what --keep names.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="[NAME=]SPEC",
            help="Add an input: 'f32[8,784]', 'tokens=int32[8,16]:1000' with an upper bound. Without names they are "
            "taken in the order of the model's arguments.",
        ),
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


def infer_map(given: BuilderArguments, progress: Callable[[str], None]) -> "InferredLayers":
    """Infer the map between two builders.

    Raises:
        EquivError: they, or their batch, cannot be used.
    """
    case = given.read_case()
    from equiv.frontends.functions import infer_layers

    progress("reading both ports")
    return infer_layers(given.left, given.right, batch=case.batch, methods=case.methods, keep=case.keep)


def write_case(found: "InferredLayers", path: Path) -> None:
    """Write the case file.

    Raises:
        EquivError: it cannot be written.
    """
    from equiv.infer.table.case_writer import case_text

    write_file(path, case_text(found.draft, path.resolve().parent).encode(), "Give another file with -o.")
