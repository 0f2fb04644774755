"""Random edits that stand for no bug: any that type-check, and some that should not change the results.

They test the prover: two programs that it proves equal must give equal numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax import lax
from jax import numpy as jnp
from jax.extend import core

from equiv.compat import reduce_by
from equiv.programs.mutation import arithmetic, shapes
from equiv.programs.mutation.catalogue import Fault
from equiv.programs.mutation.edits import has_float_result, rebind_equation, replace_function
from equiv.programs.mutation.equations import EquationContext
from equiv.programs.mutation.splice import Edit, replace_equation, replace_operand
from equiv.programs.primitives import ADDITIONS, BINARY_ARITHMETIC, COMPARISONS

UNARY: tuple[Callable[[Any], Any], ...] = (
    lax.neg, lax.abs, lax.tanh, lax.logistic, lax.sqrt, lax.rsqrt, lax.square, lax.sin, lax.sign,
    lambda x: lax.integer_pow(x, 3), lambda x: lax.integer_pow(x, -1),
)  # fmt: skip

BINARY: tuple[Callable[[Any, Any], Any], ...] = (lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.min, lax.atan2)

OPERATIONS = ("tanh", "logistic", "sqrt", "rsqrt", "square", "exp", "log", "neg", "abs", "sign", "sin", "integer_pow")


def use_other_operation(context: EquationContext) -> Iterator[Edit]:
    """Replace a function by another with the same number of operands."""
    if has_float_result(context) and context.name in OPERATIONS:
        yield from (replace_function(context, function) for function in UNARY)
    if has_float_result(context) and context.name in ADDITIONS | BINARY_ARITHMETIC:
        yield from (replace_function(context, function) for function in BINARY)


def use_other_operand(context: EquationContext) -> Iterator[Edit]:
    """Replace an operand by another value in scope of the same shape and dtype."""
    before = context.jaxpr.eqns[: context.path[-1]]
    scope = [
        *context.jaxpr.invars,
        *(var for eqn in before for var in eqn.outvars if not isinstance(var, core.DropVar)),
    ]
    for index, atom in enumerate(context.eqn.invars):
        for other in scope:
            if other is not atom and (other.aval.shape, other.aval.dtype) == (atom.aval.shape, atom.aval.dtype):
                yield replace_operand(index, [other], lambda array: [array])


def _scramble(array: Any) -> Any:
    return lax.reshape(lax.transpose(array, tuple(range(array.ndim))[::-1]), array.shape)


OPERAND_VIEWS: tuple[Callable[[Any], Any], ...] = (
    _scramble,
    lambda x: lax.reshape(_scramble(_scramble(x)), x.shape),
    lambda x: lax.reshape(lax.reshape(x, (x.size,)), x.shape),
    lambda x: lax.rev(x, (0,)),
    lambda x: jnp.roll(x, 1, x.ndim - 1),
    shapes.repeat_first_row,
    lambda x: lax.broadcast_in_dim(lax.index_in_dim(x, 0, 0, keepdims=False), x.shape, tuple(range(1, x.ndim))),
    lambda x: lax.broadcast_in_dim(lax.index_in_dim(x, 0, 1, keepdims=False), x.shape, (0, *range(2, x.ndim))),
    lambda x: lax.broadcast_in_dim(reduce_by("sum")(x, (0,)), x.shape, tuple(range(1, x.ndim))),
    lambda x: lax.broadcast_in_dim(reduce_by("sum")(x, (0,)), x.shape, tuple(range(x.ndim - 1))),
    lambda x: x - lax.broadcast_in_dim(reduce_by("sum")(x, (0,)) / x.shape[0], x.shape, tuple(range(x.ndim - 1))),
)


def change_view(context: EquationContext) -> Iterator[Edit]:
    """Permute an operand's elements, or repeat one part of it."""
    for index, atom in enumerate(context.eqn.invars):
        rank = len(atom.aval.shape)
        if rank and "float" in str(atom.aval.dtype):
            orders = [order for order in itertools.permutations(range(rank)) if order != tuple(range(rank))][:5]
            transposes = [lambda array, order=order: lax.transpose(array, order) for order in orders]
            for change in (*OPERAND_VIEWS, *transposes):
                yield replace_operand(index, [atom], lambda array, change=change: [change(array)])


def use_other_parameter(context: EquationContext) -> Iterator[Edit]:
    """Change an axis, permutation or position where the shapes allow it."""
    ins, params = context.eqn.invars, context.eqn.params
    ways: list[dict[str, Any]] = []
    if context.name == "transpose":
        ways = [{"permutation": order} for order in itertools.permutations(params["permutation"])]
    if context.name == "broadcast_in_dim":
        rank, axes = len(params["shape"]), params["broadcast_dimensions"]
        ways = [{"broadcast_dimensions": places} for places in itertools.combinations(range(rank), len(axes))]
    if context.name == "concatenate":
        ways = [{"dimension": axis} for axis in range(len(ins[0].aval.shape))]
    if context.name.startswith("cum"):
        ways = [{"reverse": not params["reverse"]}]
    for way in ways:
        if any(params[key] != value for key, value in way.items()):
            yield replace_equation(ins, lambda *arrays, way=way: rebind_equation(context, arrays, **way))


def _filled_with(number: float) -> Callable[[Any], Any]:
    return lambda x: lax.full_like(x, number)


EQUIVALENT_UNARY: tuple[Callable[[Any], Any], ...] = (
    lambda x: x * _filled_with(2.0)(x) / _filled_with(2.0)(x),
    lambda x: lax.neg(lax.neg(x)),
    lambda x: x + _filled_with(0.0)(x),
    lambda x: x * _filled_with(0.25)(x) + x * _filled_with(0.75)(x),
    lambda x: lax.sqrt(x * x),  # for x >= 0
    lambda x: lax.sqrt(x) * lax.sqrt(x),
    lambda x: x * x * lax.integer_pow(x, -1),
    lambda x: lax.max(x, lax.full_like(x, 0)),
    lambda x: lax.transpose(lax.transpose(x, tuple(range(x.ndim))[::-1]), tuple(range(x.ndim))[::-1]),
)

EQUIVALENT_BINARY: dict[str, Sequence[Callable[[Any, Any], Any]]] = {
    "add": (lambda a, b: b + a, lambda a, b: lax.neg(lax.neg(a) - b), lambda a, b: (a + a + b) - a),
    "sub": (lambda a, b: a + lax.neg(b), lambda a, b: lax.neg(b - a), lambda a, b: (a + b) - (b + b)),
    "mul": (
        lambda a, b: b * a,
        lambda a, b: a / lax.integer_pow(b, -1),
        lambda a, b: ((a + a) * b) * _filled_with(0.5)(a),
    ),
    "div": (lambda a, b: a * lax.integer_pow(b, -1), lambda a, b: a * b / (b * b)),
}


def rewrite_equivalently(context: EquationContext) -> Iterator[Edit]:
    """Rewrite to something equal in real arithmetic; some rewrites hold only for values that are not negative."""
    if has_float_result(context) and context.name in EQUIVALENT_BINARY:
        yield from (replace_function(context, function) for function in EQUIVALENT_BINARY[context.name])
    for index, atom in enumerate(context.eqn.invars):
        if "float" in str(atom.aval.dtype):
            for change in EQUIVALENT_UNARY:
                yield replace_operand(index, [atom], lambda array, change=change: [change(array)])
    if context.name == "dot_general":
        (left, right), (one, other) = context.eqn.params["dimension_numbers"]
        if len(context.eqn.outvars[0].aval.shape) == 2 and not one:
            swapped = ((right, left), (other, one))
            yield replace_equation(
                context.eqn.invars,
                lambda a, b: [lax.transpose(rebind_equation(context, [b, a], dimension_numbers=swapped)[0], (1, 0))],
            )


MUTABLE_PRIMITIVES = ADDITIONS | BINARY_ARITHMETIC | COMPARISONS | {"select_n"}

RANDOM_FAULTS: tuple[Fault, ...] = (
    Fault(
        "operands swapped", "", shapes.reverse_operands((*MUTABLE_PRIMITIVES, "dot_general", "concatenate", "atan2"))
    ),
    Fault("other operation", "", use_other_operation),
    Fault("other operand", "", use_other_operand),
    Fault("other view", "", change_view),
    Fault("other parameter", "", use_other_parameter),
    Fault("other axis", "", shapes.change_summed_axis),
    Fault("constant + 1", "", arithmetic.change_constant(MUTABLE_PRIMITIVES, lambda c: True, lambda c: c + 1)),
    Fault("constant x 1.000001", "", arithmetic.change_constant(MUTABLE_PRIMITIVES, bool, lambda c: c * 1.000001)),
    Fault("the same again", "", rewrite_equivalently),
)
"""All random edits; the last should often change nothing."""
