"""Faults in constants, activations and arithmetic."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from jax import lax
from jax.extend import core

from equiv.programs.mutation.edits import (
    EquationFault,
    broadcast_to_result,
    has_float_result,
    keep_operand,
    rebind_equation,
    replace_function,
)
from equiv.programs.mutation.equations import EquationContext, constant_value
from equiv.programs.mutation.splice import Edit, replace_equation, replace_operand
from equiv.programs.primitives import ADDITIONS

OPPOSITE_COMPARISONS = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


def change_constant(
    names: Collection[str], accept: Callable[[float], bool], change: Callable[[float], float]
) -> EquationFault:
    """Replace a constant operand by another number."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and has_float_result(context):
            for index, atom in enumerate(context.eqn.invars):
                number = context.constant(index)
                if number is not None and accept(number) and (other := change(number)) != number:
                    yield replace_operand(index, [atom], partial(_full_like, other))

    return edits


def _full_like(number: float, array: Any) -> list[Any]:
    return [lax.full_like(array, number)]


def drop_constant(names: Collection[str], accept: Callable[[float], bool]) -> EquationFault:
    """Remove the operation with a constant: the other operand passes through."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and len(context.eqn.invars) == 2 and has_float_result(context):
            for index in (0, 1):
                number = context.constant(index)
                if number is not None and accept(number):
                    yield keep_operand(context, 1 - index)

    return edits


def change_average_weight(change: Callable[[float], float]) -> EquationFault:
    """Change `c` in `c * old + (1 - c) * new`."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name not in ADDITIONS:
            return
        parts = [part for atom in context.eqn.invars if (part := _weighted_operand(context, atom)) is not None]
        if len(parts) != 2:
            return
        (one, left), (other, right) = parts
        if abs(one + other - 1) < 1e-6 and 0 < one < 1:
            weight = change(one)
            aval = context.eqn.outvars[0].aval
            yield replace_equation(
                [left, right],
                lambda a, b: [broadcast_to_result(a, aval) * weight + broadcast_to_result(b, aval) * (1 - weight)],
            )

    return edits


def _weighted_operand(context: EquationContext, atom: Any) -> tuple[float, Any] | None:
    eqn = context.made.get(atom) if isinstance(atom, core.Var) else None
    if eqn is None or eqn.primitive.name != "mul":
        return None
    for index in (0, 1):
        if (number := constant_value(eqn.invars[index], context.made)) is not None:
            return number, eqn.invars[1 - index]
    return None


def replace_operation(names: Collection[str], compute: Callable[..., Any]) -> EquationFault:
    """Replace one of these operations by another function."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if context.name in names and has_float_result(context):
            yield replace_function(context, compute)

    return edits


def drop_operation(names: Collection[str], index: int) -> EquationFault:
    """Remove a binary operation: one operand passes through."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        if (
            context.name in names
            and has_float_result(context)
            and all(context.constant(place) is None for place in (0, 1))
        ):
            yield keep_operand(context, index)

    return edits


def replace_relu(compute: Callable[[Any], Any]) -> EquationFault:
    """Replace `max(x, 0)`."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        aval = context.eqn.outvars[0].aval
        for index in (0, 1):
            if context.name == "max" and has_float_result(context) and context.constant(1 - index) == 0:
                yield replace_equation(
                    [context.eqn.invars[index]], lambda array: [compute(broadcast_to_result(array, aval))]
                )

    return edits


def replace_square(compute: Callable[[Any], Any]) -> EquationFault:
    """Replace a square."""

    def edits(context: EquationContext) -> Iterator[Edit]:
        power = context.name == "integer_pow" and context.eqn.params["y"] == 2
        times = context.name == "mul" and context.eqn.invars[0] is context.eqn.invars[1]
        if has_float_result(context) and (context.name == "square" or power or times):
            yield replace_equation([context.eqn.invars[0]], lambda array: [compute(array)])

    return edits


def increase_power(context: EquationContext) -> Iterator[Edit]:
    """Increase an exponent by one."""
    if context.name == "integer_pow":
        yield replace_equation(
            context.eqn.invars, lambda array: rebind_equation(context, [array], y=context.eqn.params["y"] + 1)
        )
    if context.name == "pow":
        yield replace_operand(1, [context.eqn.invars[1]], lambda power: [power + lax.full_like(power, 1)])


def flip_comparison(context: EquationContext) -> Iterator[Edit]:
    """Replace less by greater and greater by less."""
    if context.name in OPPOSITE_COMPARISONS:
        function = getattr(lax, OPPOSITE_COMPARISONS[context.name])
        yield replace_function(context, function)


def swap_select_cases(context: EquationContext) -> Iterator[Edit]:
    """Swap the two cases of a `select_n`."""
    if context.name == "select_n" and len(context.eqn.invars) == 3:
        yield replace_equation(context.eqn.invars, lambda which, no, yes: rebind_equation(context, [which, yes, no]))
