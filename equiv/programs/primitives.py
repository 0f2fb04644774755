"""Properties of jax's primitives that value numbering uses."""

from collections.abc import Callable
from typing import Any

import numpy as np

# fmt: off
ELEMENTWISE = frozenset((
    "add", "sub", "mul", "div", "rem", "max", "min", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "cbrt", "exp",
    "exp2", "expm1", "log", "log1p", "tanh", "tan", "sin", "cos", "asin", "acos", "atan", "atan2", "sinh", "cosh",
    "asinh", "acosh", "atanh", "logistic", "erf", "erfc", "erf_inv", "lgamma", "digamma", "pow", "integer_pow",
    "floor", "ceil", "round", "is_finite", "not", "and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge",
    "select_n", "clamp", "nextafter", "shift_left", "shift_right_logical", "shift_right_arithmetic", "add_any",
    "convert_element_type", "bitcast_convert_type", "population_count", "one_minus_square",
))
# fmt: on
"""Primitives whose result at an index depends on the operands at that index alone."""

COMMUTATIVE = frozenset(("add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"))

IDENTITY_PRIMITIVES = frozenset(
    ("copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint", "name", "pvary", "mesh_cast")
)
"""Identities. Programs are differentiated before they are numbered, so `stop_gradient` has had its effect already."""

CONSTANT_FOLDING: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "sqrt": np.sqrt,
    "max": np.maximum, "min": np.minimum,
}  # fmt: skip
"""Operations that numpy rounds exactly as XLA does (IEEE 754 requires it)."""
