"""The length of the longest chain of rounded operations before each output of a program."""

from typing import Any

import numpy as np

from equiv.core.output_name import OutputName
from equiv.programs.jaxpr import Interpreter, inner_jaxprs, open_jaxpr
from equiv.programs.primitives import CUMULATIVE, EXACT, REDUCTIONS
from equiv.programs.program import Program


def rounding_depths(program: Program) -> dict[OutputName, int]:
    """Map each output to the length of the longest chain of rounded operations before it; a sum of n terms counts n."""
    return dict(zip(program.outputs, _depths_from_zero(program.jaxpr), strict=True))


def _depths_from_zero(jaxpr: Any) -> list[int]:
    return _RoundingDepth().run(jaxpr, [0] * len(open_jaxpr(jaxpr)[0].invars))


class _RoundingDepth(Interpreter[int]):
    """The length of the longest chain of rounded operations that leads to a value."""

    def literal(self, atom: Any) -> int:
        return 0

    def constant(self, array: Any) -> int:
        return 0

    def equation(self, eqn: Any, ins: list[int]) -> list[int]:
        deepest = max(ins, default=0)
        if bodies := inner_jaxprs(eqn):
            inside = max((depth for body in bodies for depth in _depths_from_zero(body)), default=0)
            return [deepest + inside * eqn.params.get("length", 1)] * len(eqn.outvars)
        return [deepest + (_count_terms(eqn) if _is_float(var) else 0) for var in eqn.outvars]


def _is_float(var: Any) -> bool:
    return "float" in str(var.aval.dtype) or "complex" in str(var.aval.dtype)


def _count_terms(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in EXACT:
        return 0
    shape: list[int] = list(eqn.invars[0].aval.shape) if eqn.invars else []
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return int(np.prod([shape[axis] for axis in contracted], dtype=int))
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return int(np.prod(kernel, dtype=int) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]])
    if name in CUMULATIVE:
        return int(shape[eqn.params["axis"]])
    if name in REDUCTIONS or "scatter" in name:
        return max(1, int(np.prod(shape, dtype=int) // max(1, int(np.prod(eqn.outvars[0].aval.shape, dtype=int)))))
    return 1
