"""Run a program operation by operation, without compiling it as a whole: a thousand variants of one cost little.

Operations that numpy rounds as XLA does (IEEE 754 requires it), and sums, whose order is free, run in numpy, whose
overhead per operation is ten times smaller; everything else runs in jax, one primitive at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from equiv.programs.jaxpr import CALL_PRIMITIVES, open_jaxpr, scan_operand_bounds

EquationCallback = Callable[[tuple[Any, ...], Sequence[Any], Sequence[Any]], None]
"""Called for every equation with (enclosing calls..., equation), its inputs and its outputs; a loop is one equation."""


def evaluate_eagerly(closed: Any, arrays: Sequence[Any], seen: EquationCallback | None = None) -> list[np.ndarray]:
    """Evaluate a jaxpr eagerly; call it inside `jax.enable_x64(True)` for a float64 program."""
    jaxpr, consts = open_jaxpr(closed)
    return [np.asarray(value) for value in _evaluate_jaxpr(jaxpr, consts, arrays, seen)]


def _evaluate_jaxpr(
    jaxpr: Any,
    consts: Sequence[Any],
    arrays: Sequence[Any],
    seen: EquationCallback | None = None,
    calls: tuple[Any, ...] = (),
) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arrays, strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, literal_dtype(atom)) if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        ins = [read(atom) for atom in eqn.invars]
        outs = _evaluate_equation(eqn, ins, seen, calls)
        if seen is not None and eqn.primitive.name not in CALL_PRIMITIVES:
            seen((*calls, eqn), ins, outs)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def literal_dtype(atom: Any) -> Any:
    """The dtype that a literal stands for; its value may be a plain Python number."""
    return atom.aval.dtype


def _evaluate_equation(
    eqn: Any, ins: list[Any], seen: EquationCallback | None = None, calls: tuple[Any, ...] = ()
) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALL_PRIMITIVES:
        body, consts = open_jaxpr(params[CALL_PRIMITIVES[name]])
        return _evaluate_jaxpr(body, consts, ins[len(ins) - len(body.invars) :], seen, (*calls, eqn))
    if name in LOOP_EVALUATORS:
        return LOOP_EVALUATORS[name](eqn, ins)
    if (outs := _evaluate_by_numpy(eqn, ins)) is not None:
        return outs
    outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
    return outs if eqn.primitive.multiple_results else [outs]


def _evaluate_by_numpy(eqn: Any, ins: list[Any]) -> list[np.ndarray] | None:
    name, aval = eqn.primitive.name, eqn.outvars[0].aval
    if name in NUMPY_ELEMENTWISE and (name != "div" or "float" in str(aval.dtype)):
        return [NUMPY_ELEMENTWISE[name](*ins)]
    if name in NUMPY_RESHAPING:
        return [NUMPY_RESHAPING[name](eqn, *map(np.asarray, ins))]
    if name == "select_n" and len(ins) == 3:
        return [np.where(ins[0], ins[2], ins[1])]
    if name == "concatenate":
        return [np.concatenate(list(map(np.asarray, ins)), axis=eqn.params["dimension"])]
    return None


def _broadcast_in_dim(eqn: Any, array: np.ndarray) -> np.ndarray:
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    unit = [array.shape[places.index(axis)] if axis in places else 1 for axis in range(len(shape))]
    return np.broadcast_to(array.reshape(unit), shape)


NUMPY_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sqrt": np.sqrt, "square": np.square, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "is_finite": np.isfinite, "not": np.invert, "and": np.bitwise_and, "or": np.bitwise_or,
}  # fmt: skip

NUMPY_RESHAPING: dict[str, Callable[..., Any]] = {
    "reshape": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "squeeze": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "expand_dims": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "transpose": lambda eqn, array: array.transpose(eqn.params["permutation"]),
    "broadcast_in_dim": _broadcast_in_dim,
    "rev": lambda eqn, array: np.flip(array, eqn.params["dimensions"]),
    "reduce_sum": lambda eqn, array: np.sum(array, axis=eqn.params["axes"], dtype=array.dtype),
    "reduce_max": lambda eqn, array: np.max(array, axis=eqn.params["axes"]),
    "reduce_min": lambda eqn, array: np.min(array, axis=eqn.params["axes"]),
}


def _evaluate_scan(eqn: Any, ins: list[Any]) -> list[Any]:
    body, consts = open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = scan_operand_bounds(eqn)
    carry, iterations = ins[fixed:carried], range(eqn.params["length"])
    slices = [np.asarray(value) for value in ins[carried:]]
    stacked: list[list[Any]] = []
    for iteration in reversed(iterations) if eqn.params["reverse"] else iterations:
        outs = _evaluate_jaxpr(body, consts, [*ins[:fixed], *carry, *(value[iteration] for value in slices)])
        carry = outs[: len(carry)]
        stacked.append(outs[len(carry) :])
    if eqn.params["reverse"]:
        stacked.reverse()
    empty = [np.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars[len(carry) :]]
    return [*carry, *(list(map(np.stack, zip(*stacked, strict=True))) if stacked else empty)]


def _evaluate_while(eqn: Any, ins: list[Any]) -> list[Any]:
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, body = open_jaxpr(params["cond_jaxpr"]), open_jaxpr(params["body_jaxpr"])
    carry = ins[for_body:]
    while bool(np.asarray(_evaluate_jaxpr(*test, [*ins[:for_test], *carry])[0])):
        carry = _evaluate_jaxpr(*body, [*ins[for_test:for_body], *carry])
    return carry


def _evaluate_cond(eqn: Any, ins: list[Any]) -> list[Any]:
    branches = eqn.params["branches"]
    return _evaluate_jaxpr(*open_jaxpr(branches[min(max(int(np.asarray(ins[0])), 0), len(branches) - 1)]), ins[1:])


LOOP_EVALUATORS = {"scan": _evaluate_scan, "while": _evaluate_while, "cond": _evaluate_cond}
