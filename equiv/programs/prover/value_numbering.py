"""Value numbering: a program's outputs as names, such that equal names mean the same operations on the same inputs.

Calls are inlined; views, commutative operands, squares and dimension orders have one normal form (`terms.py`,
`products.py`); loops are compared by what a turn does (`loops.py`). Whatever is not known is an uninterpreted symbol:
equal only to itself on equal operands. Sound, not complete: unequal names prove nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from equiv.programs.jaxpr import CALLS, inner, opened
from equiv.programs.primitives import COMMUTES, ELEMENTWISE, FOLDED, TRANSPARENT
from equiv.programs.program import Program
from equiv.programs.prover import contractions as products
from equiv.programs.prover import loops
from equiv.programs.prover import rules as rewrites
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.terms import (
    Value,
    atom,
    attributes,
    broadcast,
    digest,
    dtype_name,
    elementwise,
    literal,
    number,
    permute,
    reshape,
)

Step = tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]
"""The calls around an equation and the equation, what goes in, what comes out."""


@dataclass
class Numbering:
    """Names given so far, and the rewrites in force.

    Attributes:
        algebra: rewrites of real arithmetic; none by default.
        reshaped: reshaped term to what it was reshaped from.
        nest: the loops around what is numbered now, and what loops stacked.
        steps: every equation after the calls around it, and the computed terms that go in and come out, in program
            order; None: not kept.
        calls: the calls around what is numbered now.
    """

    algebra: Algebra = field(default_factory=Algebra)
    reshaped: dict[str, Value] = field(default_factory=dict)
    nest: loops.Nest = field(default_factory=loops.Nest)
    steps: list[Step] | None = None
    calls: list[Any] = field(default_factory=list)


def number_program(
    program: Program, numbering: Numbering | None = None, aliases: Mapping[str, str] | None = None
) -> dict[str, Value]:
    """Every output of a program as a value; its name is equal to another's only if it is the same computation.

    Args:
        program: what is numbered.
        numbering: rewrites in force; None: none.
        aliases: input to the input whose value it is known to have.
    """
    numbering, aliases = numbering or Numbering(), aliases or {}
    jaxpr, consts = opened(program.jaxpr)
    pairs = zip(program.inputs, jaxpr.invars, strict=True)
    inputs = [atom(input_term(aliases.get(name, name)), var.aval.shape, var.aval.dtype) for name, var in pairs]
    return dict(zip(program.outputs, walk(numbering, jaxpr, consts, inputs), strict=True))


def input_term(name: str) -> str:
    """The term of a program's input."""
    return digest("input", name)


def walk(numbering: Numbering, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """The outputs of a jaxpr as values."""
    values = dict(zip(jaxpr.constvars, map(literal, consts), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(item: Any) -> Value:
        return literal(np.asarray(item.val, _dtype(item))) if isinstance(item, core.Literal) else values[item]

    for eqn in jaxpr.eqns:
        ins = [read(item) for item in eqn.invars]
        outs = _equation(numbering, eqn, ins)
        if numbering.steps is not None and eqn.primitive.name not in CALLS:
            numbering.steps.append(((*numbering.calls, eqn), _terms(ins), _terms(outs)))
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(item) for item in jaxpr.outvars]


def _terms(values: Sequence[Value]) -> tuple[str, ...]:
    """Terms that are computed; a number belongs to the equation that uses it."""
    return tuple(value.term for value in values if value.constant is None)


def _dtype(item: Any) -> Any:
    return item.aval.dtype


def _equation(numbering: Numbering, eqn: Any, ins: list[Value]) -> list[Value]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        body, consts = opened(params[CALLS[name]])
        numbering.calls.append(eqn)
        outs = walk(numbering, body, consts, ins[len(ins) - len(body.invars) :])
        numbering.calls.pop()
        return outs
    if name in TRANSPARENT:
        return ins
    if name in loops.RULES:
        turn = lambda body, consts, values: walk(numbering, body, consts, values)  # noqa: E731
        return loops.RULES[name](eqn, ins, turn, numbering.nest)
    if len(eqn.outvars) == 1:
        aval = eqn.outvars[0].aval
        if name in VIEWS:
            return [VIEWS[name](numbering, eqn, ins[0])]
        if name in ELEMENTWISE and (name != "bitcast_convert_type" or ins[0].shape == aval.shape):
            return [_elementwise(numbering, name, params, ins, aval)]
        if (value := _contraction(numbering, name, params, ins, aval)) is not None:
            return [value]
    return opaque(eqn, ins)


def opaque(eqn: Any, ins: Sequence[Value]) -> list[Value]:
    """An operation that nothing is known of."""
    key = [eqn.primitive.name, attributes(eqn.params), [value.name for value in ins]]
    if any(len(opened(body)[1]) for body in inner(eqn)):
        key.append(next(loops.FRESH))  # constants that the printed parameters do not show
    avals = [var.aval for var in eqn.outvars]
    return [
        atom(digest("opaque", key, index, aval.shape, dtype_name(aval.dtype)), aval.shape, aval.dtype)
        for index, aval in enumerate(avals)
    ]


def _contraction(numbering: Numbering, name: str, params: dict[str, Any], ins: list[Value], aval: Any) -> Value | None:
    """A product of matrices or a reduction; scales come out of it where a rewrite in force says so."""
    if name not in products.RULES:
        return None
    algebra = numbering.algebra
    if name == "dot_general":
        return rewrites.contraction(algebra, ins, lambda pair: products.dot_general(params, pair, aval), aval)
    value = products.reduce(name, params, ins[0], aval)
    if name != "reduce_sum" or value is None or "float" not in dtype_name(aval.dtype):
        return value
    return rewrites.total(algebra, ins[0], params["axes"], lambda one: products.reduce(name, params, one, aval), aval)


def _elementwise(numbering: Numbering, name: str, params: dict[str, Any], ins: list[Value], aval: Any) -> Value:
    dtype = dtype_name(aval.dtype)
    if name == "convert_element_type" and ins[0].dtype == dtype:
        return ins[0]
    if name in FOLDED and all(value.constant is not None for value in ins):
        with np.errstate(all="ignore"):
            folded = np.asarray(FOLDED[name](*(value.constant for value in ins)))
        if dtype_name(folded.dtype) == dtype:  # numpy divides whole numbers into floats
            return number(folded, aval.shape)
    if name == "select_n" and ins[0].constant is not None:
        return ins[1 + int(ins[0].constant)]
    if name in ("mul", "div") and ins[1].constant == 1 and ins[0].shape == aval.shape:
        return ins[0]
    algebra = numbering.algebra
    if algebra.rules and (value := rewrites.operation(algebra, name, params, ins, aval)) is not None:
        return value
    name, ins = _normal(name, params, ins)
    extra = attributes(params) if name not in ("square", "convert_element_type") else []
    return elementwise((name, extra), ins, aval.shape, dtype, name in COMMUTES)


def _normal(name: str, params: dict[str, Any], ins: list[Value]) -> tuple[str, list[Value]]:
    if (name == "integer_pow" and params["y"] == 2) or (name == "mul" and ins[0] == ins[1]):
        return "square", ins[:1]
    return ("add" if name == "add_any" else name), ins


def _reshape(numbering: Numbering, eqn: Any, value: Value) -> Value:
    shape = eqn.outvars[0].aval.shape
    base = numbering.reshaped.get(value.term) if value.plain else None
    source = base or value
    result = reshape(source, shape)
    if result.term != source.term:  # a term of its own, and no view of the source
        numbering.reshaped.setdefault(result.term, source)
    return result


VIEWS: dict[str, Callable[[Numbering, Any, Value], Value]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": lambda _, eqn, value: broadcast(
        value, eqn.outvars[0].aval.shape, eqn.params["broadcast_dimensions"]
    ),
    "transpose": lambda _, eqn, value: permute(value, eqn.params["permutation"]),
}
