"""Faults in leaves: in a program's inputs, and in the state, gradients and updates that it returns."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from jax import lax
from jax.extend import core

from equiv.core.output_name import STEP, InputName, OutputName, leaf_input
from equiv.programs.jaxpr import open_jaxpr
from equiv.programs.mutation.splice import replace_inputs, replace_outputs
from equiv.programs.program import Program

ProgramFault = Callable[[Program], Iterator[tuple[str, Callable[[], Program]]]]
"""The sites of a fault of a whole program: a description, and a function that makes the mutant."""


def input_variable(program: Program, name: InputName) -> Any:
    """The variable of an input."""
    return open_jaxpr(program.jaxpr)[0].invars[program.inputs.index(name)]


def output_atom(program: Program, name: OutputName) -> Any:
    """The atom of an output."""
    return open_jaxpr(program.jaxpr)[0].outvars[program.outputs.index(name)]


def same_aval(one: Any, other: Any) -> bool:
    """Whether two atoms have the same shape and dtype."""
    return (one.aval.shape, one.aval.dtype) == (other.aval.shape, other.aval.dtype)


def is_model_leaf(name: InputName) -> bool:
    """Whether an input is a variable of the model, or a count of train steps."""
    return name.kind in ("leaf", "bookkeeping")


def is_batch(name: InputName) -> bool:
    """Whether an input is a batch entry."""
    return name.kind == "batch"


def is_draw(name: InputName) -> bool:
    """Whether an input holds the bits of a draw."""
    return name.kind == "draw"


def is_gradient(name: OutputName) -> bool:
    """Whether an output is a gradient."""
    return name.kind == "gradient"


def _used_inputs(program: Program) -> list[InputName]:
    """The inputs that some equation or output uses."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    read = {atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, core.Var)}
    read.update(atom for atom in jaxpr.outvars if isinstance(atom, core.Var))
    return [name for name, var in zip(program.inputs, jaxpr.invars, strict=True) if var in read]


def change_input(wanted: Callable[[InputName], bool], change: Callable[[Any], Any]) -> ProgramFault:
    """Change one input."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, _used_inputs(program)):
            wiring = {name: ([input_variable(program, name)], lambda array: [change(array)])}
            yield f"input {name}", partial(replace_inputs, program, wiring)

    return sites


def swap_inputs(wanted: Callable[[InputName], bool], both: bool = True) -> ProgramFault:
    """Swap two inputs of equal shape; with `both=False`, use the first for both."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for one, other in _pairs_of_same_aval(program, list(filter(wanted, _used_inputs(program))), input_variable):
            ways = {
                one: ([input_variable(program, other)], unchanged),
                other: ([input_variable(program, one)], unchanged),
            }
            wiring = ways if both else {other: ways[other]}
            yield f"inputs {one} and {other}", partial(replace_inputs, program, wiring)

    return sites


def unchanged(array: Any) -> list[Any]:
    """The array unchanged, as a list."""
    return [array]


def change_output(wanted: Callable[[OutputName], bool], change: Callable[[Any], Any]) -> ProgramFault:
    """Change one output."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, program.outputs):
            wiring = {name: ([output_atom(program, name)], lambda array: [change(array)])}
            yield f"output {name.text}", partial(replace_outputs, program, wiring)

    return sites


def swap_outputs(wanted: Callable[[OutputName], bool]) -> ProgramFault:
    """Swap two outputs of equal shape."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for one, other in _pairs_of_same_aval(program, list(filter(wanted, program.outputs)), output_atom):
            wiring = {one: ([output_atom(program, other)], unchanged), other: ([output_atom(program, one)], unchanged)}
            yield f"outputs {one.text} and {other.text}", partial(replace_outputs, program, wiring)

    return sites


Name = TypeVar("Name", InputName, OutputName)


def _pairs_of_same_aval(
    program: Program, names: list[Name], atom: Callable[[Program, Name], Any]
) -> Iterator[tuple[Name, Name]]:
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if same_aval(atom(program, one), atom(program, other)):
                yield one, other


def change_update(
    wanted: Callable[[OutputName], bool], change: Callable[[Any, Any], Any], together: bool = False, whole: bool = True
) -> ProgramFault:
    """Change the new value of a leaf, given its old value and its correct new value.

    Args:
        wanted: selects outputs by name.
        change: old and new value to the faulty one.
        together: change all of them in one mutant instead of one per mutant.
        whole: integer leaves too.
    """

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        ways = {}
        for name in filter(wanted, program.outputs):
            before, new = leaf_input(name.leaf) if name.kind == "state" else name.as_input, output_atom(program, name)
            if before in program.inputs and (whole or "float" in str(new.aval.dtype)):
                old = input_variable(program, before)
                if old is not new and same_aval(old, new):  # an unchanged leaf has no update
                    ways[name] = [old, new], lambda old, new: [change(old, new)]
        if together and ways:
            yield "every output that is an input too", partial(replace_outputs, program, ways)
        for name, way in {} if together else ways.items():
            yield f"output {name.text}", partial(replace_outputs, program, {name: way})

    return sites


def is_state_output(name: OutputName) -> bool:
    """Whether an output is a state leaf after a call."""
    return name.kind == "state"


def is_leaf_output(name: OutputName) -> bool:
    """Whether an output of a train step is a model leaf, or a count of steps."""
    return name.kind in ("leaf", "bookkeeping")


def is_optimizer_output(name: OutputName) -> bool:
    """Whether an output of a train step is in the optimizer's state."""
    return name.kind == "optimizer"


def only_train_step(fault: ProgramFault) -> ProgramFault:
    """Restrict a fault to train steps."""
    return lambda program: fault(program) if program.name == STEP else iter(())


def scale_array(array: Any, factor: float) -> Any:
    """Multiply an array by a number, keeping its dtype."""
    return lax.mul(array, lax.full_like(array, factor))
