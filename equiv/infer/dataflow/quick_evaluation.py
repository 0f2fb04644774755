"""Run a program in numpy where an inference takes gradients of it: a map is a guess that the comparison checks.

Unlike `equiv.programs.eager`, what numpy rounds otherwise than XLA runs in numpy, too: both ports are run in the same
way, and gradients count as equal to fewer digits than float32 has. Nothing is compiled for it, as jax does for each
operation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.programs.content import is_key
from equiv.programs.eager import EagerEvaluation
from equiv.programs.primitives import is_jax_primitive

QUICK_DTYPES = frozenset(("float32", "float64", "complex64", "complex128"))
"""Dtypes of all operands, and of the result."""


def evaluate_quickly(closed: Any, arrays: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr; call it inside `jax.enable_x64(True)` for a float64 program.

    Returns:
        Numpy arrays of the dtypes and shapes that `equiv.programs.eager.evaluate_eagerly` gives, rounded otherwise;
        keys stay arrays of jax.
    """
    with np.errstate(all="ignore"):
        outs = _QuickEvaluation().run(closed, arrays)
    return [value if is_key(value) else np.asarray(value) for value in outs]


class _QuickEvaluation(EagerEvaluation):
    """Evaluation in numpy where it has the operation."""

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        rule = QUICK_RULES.get(eqn.primitive.name) if is_jax_primitive(eqn.primitive) else None
        aval = eqn.outvars[0].aval
        if rule is None or any(map(is_key, ins)):
            return super().equation(eqn, ins)
        given = list(map(np.asarray, ins))
        quick = QUICK_DTYPES.issuperset({str(aval.dtype), *(str(one.dtype) for one in given)})
        if not quick or (aval.dtype.kind != "c" and any(map(np.iscomplexobj, given))):
            return super().equation(eqn, ins)
        return [rule(eqn.params, *given).astype(aval.dtype, copy=False)]


def multiply(params: dict[str, Any], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`dot_general`: the shared axes come first, then what is left of each operand."""
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left_free = [axis for axis in range(left.ndim) if axis not in (*left_sum, *left_batch)]
    right_free = [axis for axis in range(right.ndim) if axis not in (*right_sum, *right_batch)]
    shared = [left.shape[axis] for axis in left_batch]
    rows, columns = [left.shape[axis] for axis in left_free], [right.shape[axis] for axis in right_free]
    summed = int(np.prod([left.shape[axis] for axis in left_sum], dtype=int))
    one = left.transpose([*left_batch, *left_free, *left_sum])
    other = right.transpose([*right_batch, *right_sum, *right_free])
    one = one.reshape(*shared, int(np.prod(rows, dtype=int)), summed)
    other = other.reshape(*shared, summed, int(np.prod(columns, dtype=int)))
    return np.matmul(one, other).reshape((*shared, *rows, *columns))


QUICK_RULES: dict[str, Callable[..., np.ndarray]] = {
    "convert_element_type": lambda params, x: x,
    "cos": lambda params, x: np.cos(x),
    "dot_general": multiply,
    "exp": lambda params, x: np.exp(x),
    "expm1": lambda params, x: np.expm1(x),
    "integer_pow": lambda params, x: x ** params["y"],
    "log": lambda params, x: np.log(x),
    "log1p": lambda params, x: np.log1p(x),
    "logistic": lambda params, x: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda params, x: 1 / np.sqrt(x),
    "sin": lambda params, x: np.sin(x),
    "stop_gradient": lambda params, x: x,
    "tanh": lambda params, x: np.tanh(x),
}
"""Primitive to its result, from parameters and operands; only its dtype may differ."""
