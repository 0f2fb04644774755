"""Faults in leaves: in a program's inputs, and in the state, gradients and updates that it returns."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jax import lax
from jax.extend import core

from equiv.programs.jaxpr import open_jaxpr
from equiv.programs.mutation.splice import replace_inputs, replace_outputs
from equiv.programs.program import Program

ProgramFault = Callable[[Program], Iterator[tuple[str, Callable[[], Program]]]]
"""The sites of a fault of a whole program: a description, and a function that makes the mutant."""

NOT_LEAF_PREFIXES = ("batch/", "draw/", "cotangent/", "opt_state/")


def input_variable(program: Program, name: str) -> Any:
    """The variable of an input."""
    return open_jaxpr(program.jaxpr)[0].invars[program.inputs.index(name)]


def output_atom(program: Program, name: str) -> Any:
    """The atom of an output."""
    return open_jaxpr(program.jaxpr)[0].outvars[program.outputs.index(name)]


def same_aval(one: Any, other: Any) -> bool:
    """Whether two atoms have the same shape and dtype."""
    return (one.aval.shape, one.aval.dtype) == (other.aval.shape, other.aval.dtype)


def is_model_leaf(name: str) -> bool:
    """Whether an input is a variable of the model."""
    return not name.startswith(NOT_LEAF_PREFIXES)


def _used_inputs(program: Program) -> list[str]:
    """The inputs that some equation or output uses."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    read = {atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, core.Var)}
    read.update(atom for atom in jaxpr.outvars if isinstance(atom, core.Var))
    return [name for name, var in zip(program.inputs, jaxpr.invars, strict=True) if var in read]


def change_input(wanted: Callable[[str], bool], change: Callable[[Any], Any]) -> ProgramFault:
    """Change one input."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, _used_inputs(program)):
            wiring = {name: ([input_variable(program, name)], lambda array: [change(array)])}
            yield f"input {name}", partial(replace_inputs, program, wiring)

    return sites


def swap_inputs(wanted: Callable[[str], bool], both: bool = True) -> ProgramFault:
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


def change_output(wanted: Callable[[str], bool], change: Callable[[Any], Any]) -> ProgramFault:
    """Change one output."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, program.outputs):
            wiring = {name: ([output_atom(program, name)], lambda array: [change(array)])}
            yield f"output {name}", partial(replace_outputs, program, wiring)

    return sites


def swap_outputs(wanted: Callable[[str], bool]) -> ProgramFault:
    """Swap two outputs of equal shape."""

    def sites(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for one, other in _pairs_of_same_aval(program, list(filter(wanted, program.outputs)), output_atom):
            wiring = {one: ([output_atom(program, other)], unchanged), other: ([output_atom(program, one)], unchanged)}
            yield f"outputs {one} and {other}", partial(replace_outputs, program, wiring)

    return sites


def _pairs_of_same_aval(
    program: Program, names: list[str], atom: Callable[[Program, str], Any]
) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if same_aval(atom(program, one), atom(program, other)):
                yield one, other


def change_update(
    wanted: Callable[[str], bool], change: Callable[[Any, Any], Any], together: bool = False, whole: bool = True
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
            before, new = name.removeprefix("state "), output_atom(program, name)
            if before in program.inputs and (whole or "float" in str(new.aval.dtype)):
                old = input_variable(program, before)
                if old is not new and same_aval(old, new):  # an unchanged leaf has no update
                    ways[name] = [old, new], lambda old, new: [change(old, new)]
        if together and ways:
            yield "every output that is an input too", partial(replace_outputs, program, ways)
        for name, way in {} if together else ways.items():
            yield f"output {name}", partial(replace_outputs, program, {name: way})

    return sites


def is_state_output(name: str) -> bool:
    """Whether an output is a state leaf after a call."""
    return name.startswith("state ")


def is_training_output(kind: str) -> Callable[[str], bool]:
    """Return a predicate for outputs of a train step: model leaves (`leaf`) or optimizer state (`slot`)."""
    slot = kind == "slot"
    return lambda name: name.startswith("opt_state/") == slot and not name.startswith(("state ", "step output"))


def only_train_step(fault: ProgramFault) -> ProgramFault:
    """Restrict a fault to train steps."""
    return lambda program: fault(program) if program.name == "step" else iter(())


def scale_array(array: Any, factor: float) -> Any:
    """Multiply an array by a number, keeping its dtype."""
    return lax.mul(array, lax.full_like(array, factor))
