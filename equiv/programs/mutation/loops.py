"""Faults in loops and randomness."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

from equiv.programs.jaxpr import open_jaxpr, read_scan
from equiv.programs.mutation.edits import EquationFault, rebind_equation
from equiv.programs.mutation.equations import DRAWN, EquationContext
from equiv.programs.mutation.splice import (
    Edit,
    close_like,
    insert_equations,
    replace_body,
    replace_equation,
    replace_operand,
)


def replace_mask(compute: Callable[[Any], Any]) -> EquationFault:
    """Replace a random mask."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if str(context.eqn.outvars[0].aval.dtype) == "bool" and context.level == DRAWN:
            yield replace_equation(context.eqn.invars, lambda *arrays: [compute(rebind_equation(context, arrays)[0])])

    return edits


def complement_mask_rate(context: EquationContext) -> Iterator[Edit]:
    """Use the drop rate as the keep rate."""
    if str(context.eqn.outvars[0].aval.dtype) == "bool" and context.level == DRAWN:
        for index, atom in enumerate(context.eqn.invars):
            number = context.constant(index)
            if number is not None and 0 < number < 1 and number != 0.5:
                yield replace_operand(index, [atom], lambda array, to=1 - number: [lax.full_like(array, to)])


def only_programs_that_draw(change: EquationFault) -> EquationFault:
    """Restrict a fault to programs that draw."""
    return lambda context: change(context) if context.program.draws else iter(())


def reverse_scan(context: EquationContext) -> Iterator[Edit]:
    """Run a scan in the other direction."""
    if context.name == "scan":
        params = {**context.eqn.params, "reverse": not context.eqn.params["reverse"]}
        yield lambda jaxpr, index: insert_equations(jaxpr, index, context.eqn.replace(params=params))


def change_carries(change: Callable[[list[Any], list[Any], int], list[Any] | None]) -> EquationFault:
    """Change a carry: `change` takes the body's incoming carries, its outgoing carries, and an index."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name != "scan":
            return
        loop = read_scan(context.eqn)
        body, _ = open_jaxpr(loop.body)
        _, incoming, _ = loop.split(list(body.invars))
        handed, stacked = list(body.outvars[: loop.carries]), body.outvars[loop.carries :]
        for index in range(loop.carries):
            outs = change(incoming, handed, index)
            if outs is not None and outs != handed:
                new = close_like(loop.body, body.replace(outvars=[*outs, *stacked]))
                yield lambda jaxpr, place, to=new: insert_equations(jaxpr, place, replace_body(context.eqn, 0, to))

    return edits


def keep_stale_carry(incoming: list[Any], outgoing: list[Any], index: int) -> list[Any]:
    """Return one carry unchanged."""
    return [incoming[index] if place == index else atom for place, atom in enumerate(outgoing)]


def swap_carries(incoming: list[Any], outgoing: list[Any], index: int) -> list[Any] | None:
    """Swap two carries of equal shape."""
    for other in range(index + 1, len(outgoing)):
        if incoming[index].aval == incoming[other].aval:
            outs = list(outgoing)
            outs[index], outs[other] = outs[other], outs[index]
            return outs
    return None


def change_scan_input(part: str, change: Callable[[Any], Any]) -> EquationFault:
    """Change an operand of a scan: its `slices` (xs), or the `start` of a carry (init)."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name == "scan":
            _, start, slices = read_scan(context.eqn).split(list(range(len(context.eqn.invars))))
            for index in slices if part == "slices" else start:
                yield replace_operand(index, [context.eqn.invars[index]], lambda array: [change(array)])

    return edits
