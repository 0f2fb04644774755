"""A program run operation by operation: nothing is compiled as a whole, so a thousand variants of one cost little.

What numpy rounds as XLA does (IEEE 754 requires it), and sums, whose order is free, is done by numpy, which starts an
operation ten times faster; everything else by jax, one primitive at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from equiv.programs.jaxpr import CALLS, opened, scan_parts

Seen = Callable[[tuple[Any, ...], Sequence[Any], Sequence[Any]], None]
"""Told of every equation, after the calls around it, with what goes in and what comes out; a loop is one equation."""


def evaluate(closed: Any, arrays: Sequence[Any], seen: Seen | None = None) -> list[np.ndarray]:
    """The outputs of a jaxpr; call it inside `jax.enable_x64(True)` where it is a float64 program."""
    jaxpr, consts = opened(closed)
    return [np.asarray(value) for value in _walk(jaxpr, consts, arrays, seen)]


def _walk(
    jaxpr: Any, consts: Sequence[Any], arrays: Sequence[Any], seen: Seen | None = None, calls: tuple[Any, ...] = ()
) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arrays, strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, dtype_of(atom)) if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        ins = [read(atom) for atom in eqn.invars]
        outs = _equation(eqn, ins, seen, calls)
        if seen is not None and eqn.primitive.name not in CALLS:
            seen((*calls, eqn), ins, outs)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def dtype_of(atom: Any) -> Any:
    """The dtype that a literal stands for; its value may be a plain Python number."""
    return atom.aval.dtype


def _equation(eqn: Any, ins: list[Any], seen: Seen | None = None, calls: tuple[Any, ...] = ()) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        body, consts = opened(params[CALLS[name]])
        return _walk(body, consts, ins[len(ins) - len(body.invars) :], seen, (*calls, eqn))
    if name in LOOPS:
        return LOOPS[name](eqn, ins)
    if (outs := _by_numpy(eqn, ins)) is not None:
        return outs
    outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
    return outs if eqn.primitive.multiple_results else [outs]


def _by_numpy(eqn: Any, ins: list[Any]) -> list[np.ndarray] | None:
    name, aval = eqn.primitive.name, eqn.outvars[0].aval
    if name in PLAIN and (name != "div" or "float" in str(aval.dtype)):
        return [PLAIN[name](*ins)]
    if name in SHAPED:
        return [SHAPED[name](eqn, *map(np.asarray, ins))]
    if name == "select_n" and len(ins) == 3:
        return [np.where(ins[0], ins[2], ins[1])]
    if name == "concatenate":
        return [np.concatenate(list(map(np.asarray, ins)), axis=eqn.params["dimension"])]
    return None


def _broadcast(eqn: Any, array: np.ndarray) -> np.ndarray:
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    unit = [array.shape[places.index(axis)] if axis in places else 1 for axis in range(len(shape))]
    return np.broadcast_to(array.reshape(unit), shape)


PLAIN: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sqrt": np.sqrt, "square": np.square, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "is_finite": np.isfinite, "not": np.invert, "and": np.bitwise_and, "or": np.bitwise_or,
}  # fmt: skip


SHAPED: dict[str, Callable[..., Any]] = {
    "reshape": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "squeeze": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "expand_dims": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "transpose": lambda eqn, array: array.transpose(eqn.params["permutation"]),
    "broadcast_in_dim": _broadcast,
    "rev": lambda eqn, array: np.flip(array, eqn.params["dimensions"]),
    "reduce_sum": lambda eqn, array: np.sum(array, axis=eqn.params["axes"], dtype=array.dtype),
    "reduce_max": lambda eqn, array: np.max(array, axis=eqn.params["axes"]),
    "reduce_min": lambda eqn, array: np.min(array, axis=eqn.params["axes"]),
}


def _scan(eqn: Any, ins: list[Any]) -> list[Any]:
    body, consts = opened(eqn.params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    carry, turns = ins[fixed:carried], range(eqn.params["length"])
    slices = [np.asarray(value) for value in ins[carried:]]
    stacked: list[list[Any]] = []
    for turn in reversed(turns) if eqn.params["reverse"] else turns:
        outs = _walk(body, consts, [*ins[:fixed], *carry, *(value[turn] for value in slices)])
        carry = outs[: len(carry)]
        stacked.append(outs[len(carry) :])
    if eqn.params["reverse"]:
        stacked.reverse()
    empty = [np.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars[len(carry) :]]
    return [*carry, *(list(map(np.stack, zip(*stacked, strict=True))) if stacked else empty)]


def _while(eqn: Any, ins: list[Any]) -> list[Any]:
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, body = opened(params["cond_jaxpr"]), opened(params["body_jaxpr"])
    carry = ins[for_body:]
    while bool(np.asarray(_walk(*test, [*ins[:for_test], *carry])[0])):
        carry = _walk(*body, [*ins[for_test:for_body], *carry])
    return carry


def _cond(eqn: Any, ins: list[Any]) -> list[Any]:
    branches = eqn.params["branches"]
    return _walk(*opened(branches[min(max(int(np.asarray(ins[0])), 0), len(branches) - 1)]), ins[1:])


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
