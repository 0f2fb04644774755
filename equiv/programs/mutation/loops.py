"""Wrong loops and wrong randomness."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

from equiv.programs.jaxpr import inner, opened, scan_parts
from equiv.programs.mutation.edits import OnEquation, bind
from equiv.programs.mutation.equations import DRAWN, Spot
from equiv.programs.mutation.splice import Edit, computed, fed, put, reclosed, with_body


def masks(compute: Callable[[Any], Any]) -> OnEquation:
    """Something else in place of a mask that is drawn at random."""

    def on(spot: Spot) -> Iterator[Edit]:
        if str(spot.eqn.outvars[0].aval.dtype) == "bool" and spot.level() == DRAWN:
            yield computed(spot.eqn.invars, lambda *arrays: [compute(bind(spot, arrays)[0])])

    return on


def mask_rate(spot: Spot) -> Iterator[Edit]:
    """The rate of dropping taken for the rate of keeping."""
    if str(spot.eqn.outvars[0].aval.dtype) == "bool" and spot.level() == DRAWN:
        for index, atom in enumerate(spot.eqn.invars):
            number = spot.constant(index)
            if number is not None and 0 < number < 1 and number != 0.5:
                yield fed(index, [atom], lambda array, to=1 - number: [lax.full_like(array, to)])


def only_drawing(change: OnEquation) -> OnEquation:
    """A fault of programs that draw."""
    return lambda spot: change(spot) if spot.program.draws else iter(())


def reversed_scan(spot: Spot) -> Iterator[Edit]:
    """A loop that runs the other way."""
    if spot.name == "scan":
        params = {**spot.eqn.params, "reverse": not spot.eqn.params["reverse"]}
        yield lambda jaxpr, index: put(jaxpr, index, spot.eqn.replace(params=params))


def carries(change: Callable[[list[Any], list[Any], int], list[Any] | None]) -> OnEquation:
    """What a turn hands on: `change` is given the carries that come in, those that go out, and one's index."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name != "scan":
            return
        closed = inner(spot.eqn)[0]
        body, _ = opened(closed)
        fixed, carried = scan_parts(spot.eqn)
        for index in range(carried - fixed):
            handed = list(body.outvars[: carried - fixed])
            outs = change(list(body.invars[fixed:carried]), handed, index)
            if outs is not None and outs != handed:
                new = reclosed(closed, body.replace(outvars=[*outs, *body.outvars[carried - fixed :]]))
                yield lambda jaxpr, place, to=new: put(jaxpr, place, with_body(spot.eqn, 0, to))

    return on


def stale(incoming: list[Any], outgoing: list[Any], index: int) -> list[Any]:
    """One carry keeps the value that it came in with."""
    return [incoming[index] if place == index else atom for place, atom in enumerate(outgoing)]


def crossed(incoming: list[Any], outgoing: list[Any], index: int) -> list[Any] | None:
    """Two carries of one shape change places."""
    for other in range(index + 1, len(outgoing)):
        if incoming[index].aval == incoming[other].aval:
            outs = list(outgoing)
            outs[index], outs[other] = outs[other], outs[index]
            return outs
    return None


def scanned(part: str, change: Callable[[Any], Any]) -> OnEquation:
    """What goes into a loop changed: `slices`, or the `start` of its carries."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name == "scan":
            fixed, carried = scan_parts(spot.eqn)
            for index in range(carried, len(spot.eqn.invars)) if part == "slices" else range(fixed, carried):
                yield fed(index, [spot.eqn.invars[index]], lambda array: [change(array)])

    return on
