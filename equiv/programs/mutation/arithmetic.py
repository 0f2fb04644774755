"""Wrong constants, activations and arithmetic."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from jax import lax
from jax.extend import core

from equiv.programs.mutation.edits import OnEquation, again, bind, fitted, floating, kept
from equiv.programs.mutation.equations import Spot, constant
from equiv.programs.mutation.splice import Edit, computed, fed

ADDS, COMPARISONS = ("add", "add_any"), {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


def constants(names: Sequence[str], accept: Callable[[float], bool], change: Callable[[float], float]) -> OnEquation:
    """Another number where an operand is a known one."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and floating(spot):
            for index, atom in enumerate(spot.eqn.invars):
                number = spot.constant(index)
                if number is not None and accept(number) and (other := change(number)) != number:
                    yield fed(index, [atom], partial(_full, other))

    return on


def _full(number: float, array: Any) -> list[Any]:
    return [lax.full_like(array, number)]


def constant_dropped(names: Sequence[str], accept: Callable[[float], bool]) -> OnEquation:
    """The operation with a known number left out."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and len(spot.eqn.invars) == 2 and floating(spot):
            for index in (0, 1):
                number = spot.constant(index)
                if number is not None and accept(number):
                    yield kept(spot, 1 - index)

    return on


def averaged(change: Callable[[float], float]) -> OnEquation:
    """`c * old + (1 - c) * new` with another `c`."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name not in ADDS:
            return
        parts = [part for atom in spot.eqn.invars if (part := _weighted(spot, atom)) is not None]
        if len(parts) != 2:
            return
        (one, left), (other, right) = parts
        if abs(one + other - 1) < 1e-6 and 0 < one < 1:
            weight = change(one)
            aval = spot.eqn.outvars[0].aval
            yield computed([left, right], lambda a, b: [fitted(a, aval) * weight + fitted(b, aval) * (1 - weight)])

    return on


def _weighted(spot: Spot, atom: Any) -> tuple[float, Any] | None:
    eqn = spot.made.get(atom) if isinstance(atom, core.Var) else None
    if eqn is None or eqn.primitive.name != "mul":
        return None
    for index in (0, 1):
        if (number := constant(eqn.invars[index], spot.made)) is not None:
            return number, eqn.invars[1 - index]
    return None


def replaced(names: Sequence[str], compute: Callable[..., Any]) -> OnEquation:
    """Another function in place of one of these."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and floating(spot):
            yield again(spot, compute)

    return on


def dropped(names: Sequence[str], index: int) -> OnEquation:
    """An operation of two values left out: one of them goes on as it is."""

    def on(spot: Spot) -> Iterator[Edit]:
        if spot.name in names and floating(spot) and all(spot.constant(place) is None for place in (0, 1)):
            yield kept(spot, index)

    return on


def relu(compute: Callable[[Any], Any]) -> OnEquation:
    """Something else in place of `max(x, 0)`."""

    def on(spot: Spot) -> Iterator[Edit]:
        aval = spot.eqn.outvars[0].aval
        for index in (0, 1):
            if spot.name == "max" and floating(spot) and spot.constant(1 - index) == 0:
                yield computed([spot.eqn.invars[index]], lambda array: [compute(fitted(array, aval))])

    return on


def squared(compute: Callable[[Any], Any]) -> OnEquation:
    """Something else in place of a square."""

    def on(spot: Spot) -> Iterator[Edit]:
        power = spot.name == "integer_pow" and spot.eqn.params["y"] == 2
        times = spot.name == "mul" and spot.eqn.invars[0] is spot.eqn.invars[1]
        if floating(spot) and (spot.name == "square" or power or times):
            yield computed([spot.eqn.invars[0]], lambda array: [compute(array)])

    return on


def powers(spot: Spot) -> Iterator[Edit]:
    """An exponent one too large."""
    if spot.name == "integer_pow":
        yield computed(spot.eqn.invars, lambda array: bind(spot, [array], y=spot.eqn.params["y"] + 1))
    if spot.name == "pow":
        yield fed(1, [spot.eqn.invars[1]], lambda power: [power + lax.full_like(power, 1)])


def compared(spot: Spot) -> Iterator[Edit]:
    """Less for greater."""
    if spot.name in COMPARISONS:
        function = getattr(lax, COMPARISONS[spot.name])
        yield again(spot, function)


def selected(spot: Spot) -> Iterator[Edit]:
    """The two sides of a choice swapped."""
    if spot.name == "select_n" and len(spot.eqn.invars) == 3:
        yield computed(spot.eqn.invars, lambda which, no, yes: bind(spot, [which, yes, no]))
