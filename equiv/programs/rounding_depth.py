"""The length of the longest chain of rounded operations before each output of a program."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from equiv.core.output_name import OutputName
from equiv.programs.jaxpr import CALL_PRIMITIVES, inner_jaxprs, open_jaxpr
from equiv.programs.program import Program

EXACT_PRIMITIVES = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "dynamic_slice", "concatenate",
    "convert_element_type", "select_n", "max", "min", "neg", "abs", "sign", "stop_gradient", "copy", "pad", "rev",
    "gather", "reduce_max", "reduce_min", "clamp", "iota", "split", "stack", "unstack",
}  # fmt: skip
"""Primitives that do not round: they move, compare or negate values."""

SUMMING_PRIMITIVES = {"reduce_sum", "reduce_prod", "reduce_precision", "argmax", "argmin"}


def rounding_depths(program: Program) -> dict[OutputName, int]:
    """Map each output to the length of the longest chain of rounded operations before it; a sum of n terms counts n."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    return dict(zip(program.outputs, _jaxpr_depths(jaxpr, [0] * len(jaxpr.invars)), strict=True))


def _jaxpr_depths(jaxpr: Any, before: Sequence[int]) -> list[int]:
    depth: dict[Any, int] = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, before, strict=True))
    for eqn in jaxpr.eqns:
        ins = [0 if isinstance(atom, core.Literal) else depth[atom] for atom in eqn.invars]
        depth.update(zip(eqn.outvars, _equation_depths(eqn, ins), strict=True))
    return [0 if isinstance(atom, core.Literal) else depth[atom] for atom in jaxpr.outvars]


def _equation_depths(eqn: Any, ins: list[int]) -> list[int]:
    name, deepest = eqn.primitive.name, max(ins, default=0)
    if name in CALL_PRIMITIVES:
        body, _ = open_jaxpr(eqn.params[CALL_PRIMITIVES[name]])
        return _jaxpr_depths(body, ins[len(ins) - len(body.invars) :])
    if bodies := inner_jaxprs(eqn):
        inside = max(
            (max(_jaxpr_depths(body, [0] * len(body.invars)), default=0) for body, _ in map(open_jaxpr, bodies)),
            default=0,
        )
        return [deepest + inside * eqn.params.get("length", 1)] * len(eqn.outvars)
    return [deepest + (_count_terms(eqn) if _is_float(var) else 0) for var in eqn.outvars]


def _is_float(var: Any) -> bool:
    return "float" in str(var.aval.dtype)


def _count_terms(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in EXACT_PRIMITIVES:
        return 0
    shape: list[int] = list(eqn.invars[0].aval.shape) if eqn.invars else []
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return int(np.prod([shape[axis] for axis in contracted], dtype=int))
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return int(np.prod(kernel, dtype=int) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]])
    if name.startswith("cum"):
        return int(shape[eqn.params["axis"]])
    if name in SUMMING_PRIMITIVES or "scatter" in name:
        return max(1, int(np.prod(shape, dtype=int) // max(1, int(np.prod(eqn.outvars[0].aval.shape, dtype=int)))))
    return 1
