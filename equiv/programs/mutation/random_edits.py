"""Changes that stand for no bug: anything that still type-checks, and what should change nothing at all.

They are for trying the prover: two programs that it calls equal must give equal numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax import lax
from jax import numpy as jnp
from jax.extend import core

from equiv.programs.mutation import arithmetic, shapes
from equiv.programs.mutation.catalogue import Fault
from equiv.programs.mutation.edits import again, bind, floating
from equiv.programs.mutation.equations import Spot
from equiv.programs.mutation.splice import Edit, computed, fed

UNARY: tuple[Callable[[Any], Any], ...] = (
    lax.neg, lax.abs, lax.tanh, lax.logistic, lax.sqrt, lax.rsqrt, lax.square, lax.sin, lax.sign,
    lambda x: lax.integer_pow(x, 3), lambda x: lax.integer_pow(x, -1),
)  # fmt: skip


BINARY: tuple[Callable[[Any, Any], Any], ...] = (lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.min, lax.atan2)


OPERATIONS = ("tanh", "logistic", "sqrt", "rsqrt", "square", "exp", "log", "neg", "abs", "sign", "sin", "integer_pow")


def other_operation(spot: Spot) -> Iterator[Edit]:
    """Another function of as many operands."""
    if floating(spot) and spot.name in OPERATIONS:
        yield from (again(spot, function) for function in UNARY)
    if floating(spot) and spot.name in ("add", "add_any", "sub", "mul", "div", "max", "min"):
        yield from (again(spot, function) for function in BINARY)


def other_operand(spot: Spot) -> Iterator[Edit]:
    """Another value in scope of the same shape and dtype."""
    before = spot.jaxpr.eqns[: spot.path[-1]]
    scope = [*spot.jaxpr.invars, *(var for eqn in before for var in eqn.outvars if not isinstance(var, core.DropVar))]
    for index, atom in enumerate(spot.eqn.invars):
        for other in scope:
            if other is not atom and (other.aval.shape, other.aval.dtype) == (atom.aval.shape, atom.aval.dtype):
                yield fed(index, [other], lambda array: [array])


def _scrambled(array: Any) -> Any:
    return lax.reshape(lax.transpose(array, tuple(range(array.ndim))[::-1]), array.shape)


VIEWS: tuple[Callable[[Any], Any], ...] = (
    _scrambled,
    lambda x: lax.reshape(_scrambled(_scrambled(x)), x.shape),
    lambda x: lax.reshape(lax.reshape(x, (x.size,)), x.shape),
    lambda x: lax.rev(x, (0,)),
    lambda x: jnp.roll(x, 1, x.ndim - 1),
    shapes.first_for_all,
    lambda x: lax.broadcast_in_dim(lax.index_in_dim(x, 0, 0, keepdims=False), x.shape, tuple(range(1, x.ndim))),
    lambda x: lax.broadcast_in_dim(lax.index_in_dim(x, 0, 1, keepdims=False), x.shape, (0, *range(2, x.ndim))),
    lambda x: lax.broadcast_in_dim(lax.reduce_sum(x, (0,)), x.shape, tuple(range(1, x.ndim))),
    lambda x: lax.broadcast_in_dim(lax.reduce_sum(x, (0,)), x.shape, tuple(range(x.ndim - 1))),
    lambda x: x - lax.broadcast_in_dim(lax.reduce_sum(x, (0,)) / x.shape[0], x.shape, tuple(range(x.ndim - 1))),
)


def view(spot: Spot) -> Iterator[Edit]:
    """An operand seen in another order, or one part of it in place of all."""
    for index, atom in enumerate(spot.eqn.invars):
        rank = len(atom.aval.shape)
        if rank and "float" in str(atom.aval.dtype):
            orders = [order for order in itertools.permutations(range(rank)) if order != tuple(range(rank))][:5]
            turned = [lambda array, order=order: lax.transpose(array, order) for order in orders]
            for change in (*VIEWS, *turned):
                yield fed(index, [atom], lambda array, change=change: [change(array)])


def other_parameter(spot: Spot) -> Iterator[Edit]:
    """Another axis, permutation or place where the shapes allow it."""
    ins, params = spot.eqn.invars, spot.eqn.params
    ways: list[dict[str, Any]] = []
    if spot.name == "transpose":
        ways = [{"permutation": order} for order in itertools.permutations(params["permutation"])]
    if spot.name == "broadcast_in_dim":
        rank, axes = len(params["shape"]), params["broadcast_dimensions"]
        ways = [{"broadcast_dimensions": places} for places in itertools.combinations(range(rank), len(axes))]
    if spot.name == "concatenate":
        ways = [{"dimension": axis} for axis in range(len(ins[0].aval.shape))]
    if spot.name.startswith("cum"):
        ways = [{"reverse": not params["reverse"]}]
    for way in ways:
        if any(params[key] != value for key, value in way.items()):
            yield computed(ins, lambda *arrays, way=way: bind(spot, arrays, **way))


def _two(number: float) -> Callable[[Any], Any]:
    return lambda x: lax.full_like(x, number)


SAME: tuple[Callable[[Any], Any], ...] = (
    lambda x: x * _two(2.0)(x) / _two(2.0)(x),
    lambda x: lax.neg(lax.neg(x)),
    lambda x: x + _two(0.0)(x),
    lambda x: x * _two(0.25)(x) + x * _two(0.75)(x),
    lambda x: lax.sqrt(x * x),  # of what is not negative
    lambda x: lax.sqrt(x) * lax.sqrt(x),
    lambda x: x * x * lax.integer_pow(x, -1),
    lambda x: lax.max(x, lax.full_like(x, 0)),
    lambda x: lax.transpose(lax.transpose(x, tuple(range(x.ndim))[::-1]), tuple(range(x.ndim))[::-1]),
)


PAIRS: dict[str, Sequence[Callable[[Any, Any], Any]]] = {
    "add": (lambda a, b: b + a, lambda a, b: lax.neg(lax.neg(a) - b), lambda a, b: (a + a + b) - a),
    "sub": (lambda a, b: a + lax.neg(b), lambda a, b: lax.neg(b - a), lambda a, b: (a + b) - (b + b)),
    "mul": (lambda a, b: b * a, lambda a, b: a / lax.integer_pow(b, -1), lambda a, b: ((a + a) * b) * _two(0.5)(a)),
    "div": (lambda a, b: a * lax.integer_pow(b, -1), lambda a, b: a * b / (b * b)),
}


def same(spot: Spot) -> Iterator[Edit]:
    """Another way to write the same, in real arithmetic; some hold only of what is not negative."""
    if floating(spot) and spot.name in PAIRS:
        yield from (again(spot, function) for function in PAIRS[spot.name])
    for index, atom in enumerate(spot.eqn.invars):
        if "float" in str(atom.aval.dtype):
            for change in SAME:
                yield fed(index, [atom], lambda array, change=change: [change(array)])
    if spot.name == "dot_general":
        (left, right), (one, other) = spot.eqn.params["dimension_numbers"]
        if len(spot.eqn.outvars[0].aval.shape) == 2 and not one:
            turned = ((right, left), (other, one))
            yield computed(
                spot.eqn.invars,
                lambda a, b: [lax.transpose(bind(spot, [b, a], dimension_numbers=turned)[0], (1, 0))],
            )


ANYTHING = ("add", "add_any", "sub", "mul", "div", "max", "min", "pow", "lt", "gt", "ge", "le", "eq", "select_n")


GENERIC: tuple[Fault, ...] = (
    Fault("operands swapped", "", shapes.order((*ANYTHING, "dot_general", "concatenate", "atan2"))),
    Fault("other operation", "", other_operation),
    Fault("other operand", "", other_operand),
    Fault("other view", "", view),
    Fault("other parameter", "", other_parameter),
    Fault("other axis", "", shapes.other_axis_summed),
    Fault("constant + 1", "", arithmetic.constants(ANYTHING, lambda c: True, lambda c: c + 1)),
    Fault("constant x 1.000001", "", arithmetic.constants(ANYTHING, bool, lambda c: c * 1.000001)),
    Fault("the same again", "", same),
)
"""Changes of every sort; the last should often change nothing."""
