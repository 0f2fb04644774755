"""Wrong leaves: what goes into a program, and what it gives back as state, gradient or update."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jax import lax
from jax.extend import core

from equiv.programs.jaxpr import opened
from equiv.programs.mutation.splice import with_inputs, with_outputs
from equiv.programs.program import Program

OnProgram = Callable[[Program], Iterator[tuple[str, Callable[[], Program]]]]
"""What a fault does to a program as a whole: places, and how to make the program that has the fault there."""


NOT_LEAVES = ("batch/", "draw/", "cotangent/", "opt_state/")


def entering(program: Program, name: str) -> Any:
    """The variable of an input."""
    return opened(program.jaxpr)[0].invars[program.inputs.index(name)]


def leaving(program: Program, name: str) -> Any:
    """What an output is."""
    return opened(program.jaxpr)[0].outvars[program.outputs.index(name)]


def alike(one: Any, other: Any) -> bool:
    """Whether two atoms have one shape and dtype."""
    return (one.aval.shape, one.aval.dtype) == (other.aval.shape, other.aval.dtype)


def is_leaf(name: str) -> bool:
    """Whether an input is a variable of the model."""
    return not name.startswith(NOT_LEAVES)


def _used(program: Program) -> list[str]:
    """The inputs that some equation reads or some output is."""
    jaxpr, _ = opened(program.jaxpr)
    read = {atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, core.Var)}
    read.update(atom for atom in jaxpr.outvars if isinstance(atom, core.Var))
    return [name for name, var in zip(program.inputs, jaxpr.invars, strict=True) if var in read]


def inputs(wanted: Callable[[str], bool], change: Callable[[Any], Any]) -> OnProgram:
    """One input changed before the program begins."""

    def on(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, _used(program)):
            wiring = {name: ([entering(program, name)], lambda array: [change(array)])}
            yield f"input {name}", partial(with_inputs, program, wiring)

    return on


def inputs_crossed(wanted: Callable[[str], bool], both: bool = True) -> OnProgram:
    """Two inputs of one shape change places; or, not `both`, one of them stands for the other too."""

    def on(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for one, other in _pairs(program, list(filter(wanted, _used(program))), entering):
            ways = {one: ([entering(program, other)], same), other: ([entering(program, one)], same)}
            wiring = ways if both else {other: ways[other]}
            yield f"inputs {one} and {other}", partial(with_inputs, program, wiring)

    return on


def same(array: Any) -> list[Any]:
    """What it is given."""
    return [array]


def outputs(wanted: Callable[[str], bool], change: Callable[[Any], Any]) -> OnProgram:
    """One output changed when the program is done."""

    def on(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for name in filter(wanted, program.outputs):
            wiring = {name: ([leaving(program, name)], lambda array: [change(array)])}
            yield f"output {name}", partial(with_outputs, program, wiring)

    return on


def outputs_crossed(wanted: Callable[[str], bool]) -> OnProgram:
    """Two outputs of one shape change places."""

    def on(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        for one, other in _pairs(program, list(filter(wanted, program.outputs)), leaving):
            wiring = {one: ([leaving(program, other)], same), other: ([leaving(program, one)], same)}
            yield f"outputs {one} and {other}", partial(with_outputs, program, wiring)

    return on


def _pairs(program: Program, names: list[str], atom: Callable[[Program, str], Any]) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if alike(atom(program, one), atom(program, other)):
                yield one, other


def updates(
    wanted: Callable[[str], bool], change: Callable[[Any, Any], Any], together: bool = False, whole: bool = True
) -> OnProgram:
    """What becomes of a leaf, given what it was and what it should be.

    Args:
        wanted: which outputs.
        change: old and new value to the faulty one.
        together: all of them at once, not one at a time.
        whole: of whole numbers too.
    """

    def on(program: Program) -> Iterator[tuple[str, Callable[[], Program]]]:
        ways = {}
        for name in filter(wanted, program.outputs):
            before, new = name.removeprefix("state "), leaving(program, name)
            if before in program.inputs and (whole or "float" in str(new.aval.dtype)):
                old = entering(program, before)
                if old is not new and alike(old, new):  # what is handed through is no update
                    ways[name] = [old, new], lambda old, new: [change(old, new)]
        if together and ways:
            yield "every output that is an input too", partial(with_outputs, program, ways)
        for name, way in {} if together else ways.items():
            yield f"output {name}", partial(with_outputs, program, {name: way})

    return on


def state(name: str) -> bool:
    """A state leaf after a call."""
    return name.startswith("state ")


def of_training(kind: str) -> Callable[[str], bool]:
    """Outputs of a train step: `leaf`, or `slot` of the optimizer."""
    slot = kind == "slot"
    return lambda name: name.startswith("opt_state/") == slot and not name.startswith(("state ", "step output"))


def in_step(fault: OnProgram) -> OnProgram:
    """A fault of train steps alone."""
    return lambda program: fault(program) if program.name == "step" else iter(())


def scaled(array: Any, factor: float) -> Any:
    """The array times a number, whole numbers too."""
    return lax.mul(array, lax.full_like(array, factor))
