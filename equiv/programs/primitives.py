"""The table of jax's primitives: what each of them is, said once.

What a module makes of a primitive (a proof rule, a dataflow rule, a fault) stays in that module, keyed by its name;
which primitives are of a kind, or have a property, is asked here. `tests/programs/test_primitives.py` compares the
table with the installed jax, so that a new release of it shows here first.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from equiv.compat import OLD_CALLS


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _names("""
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt ceil
    clamp clz complex conj convert_element_type cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge
    gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul
    mulhi ne neg nextafter not one_minus_square or polygamma population_count pow real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square sub tan tanh xor zeta
""")
"""The result at an index depends on the operands at that index alone; operands have the result's shape or are scalars.

`bitcast_convert_type` is one only between dtypes of one width.
"""


IDENTITIES = _names("""
    copy layout_constraint name optimization_barrier pvary reshard sharding_constraint stop_gradient
""")
"""Identities. Programs are differentiated before they are numbered, so `stop_gradient` has had its effect already."""


PLACEMENTS = _names("layout_constraint reshard sharding_constraint")
"""The identities that say where an array is: its numbers are the same on every mesh."""


VIEWS = _names("broadcast_in_dim reshape squeeze transpose")
"""The same elements in another shape, order of axes, or repeated."""


MOVES = _names("""
    broadcast_to concatenate dynamic_slice dynamic_update_slice gather pad rev scatter slice sort split stack tile top_k
    unstack
""")
"""Elements of the operands in other places, some of them dropped."""


REDUCTIONS = _names("reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor")
"""Reductions over the parameter `axes`, by an operation whose operands may come in any order."""


ARG_REDUCTIONS = _names("argmax argmin")
"""The index of an extreme element along an axis."""


CUMULATIVE = _names("cumlogsumexp cummax cummin cumprod cumsum")
"""A result for every prefix of the parameter `axis`."""


WINDOWED = _names("""
    reduce_window reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add select_and_scatter
    select_and_scatter_add
""")
"""Reductions over windows (pooling), and their derivatives."""


SCATTERS = _names("scatter-add scatter-max scatter-min scatter-mul scatter-sub")
"""Elements of an operand combined with updates at given indices; plain `scatter` only moves."""


CONTRACTIONS = _names("conv_general_dilated dot_general ragged_dot_general scaled_dot")
"""Sums of products."""


LINEAR_ALGEBRA = _names("""
    cholesky cholesky_update eig eigh fft geqp3 geqrf hessenberg householder_product lu lu_pivots_to_permutation ormqr
    qr schur svd symmetric_product triangular_solve tridiagonal tridiagonal_solve
""")
"""Decompositions, solvers and transforms of whole matrices or axes."""


CONSTANTS = _names("empty empty2 iota iota_2x32_shape zeros_like")
"""Arrays made from parameters alone."""


FOREIGN_CALLS = _names("call_exported core_map cudnn_fusion ffi_call io_callback pure_callback")
"""Calls of code that no jaxpr shows, as of a host function: neither what it does nor where it branches is known."""


HOST_CALLS = _names("io_callback pure_callback")
"""Those that call a Python function."""


CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    **OLD_CALLS,
}
"""Primitives that only call a jaxpr, to the parameter that holds it."""


CONTROL_FLOW = _names("cond scan while")
"""Primitives whose inner jaxprs run several times, or not at all."""


RANDOM_BITS = "random_bits"
"""The one primitive through which `jax.random` draws; its results become inputs of a program."""


RANDOMNESS = _names("""
    philox2x32 philox4x32 random_bits random_clone random_fold_in random_gamma random_seed random_split random_unwrap
    random_wrap rng_bit_generator rng_uniform threefry2x32 threefry4x32
""")
"""Keys, and numbers made from them."""


STATEFUL = _names("rng_uniform")
"""Primitives with a state that no jaxpr shows and no effect says: another result each time."""


ADDITIONS = _names("add add_any")
"""Sums of two operands; `add_any` is what differentiation adds."""


BINARY_ARITHMETIC = _names("add div max min mul pow sub")
"""Arithmetic with two operands, as users write it."""


COMPARISONS = _names("eq ge gt le lt ne")
"""Two operands to a truth value."""


COMMUTATIVE = _names("add add_any and eq max min mul ne or xor")
"""Elementwise primitives whose two operands may be exchanged, to the last bit."""


# fmt: off
EXACT = VIEWS | MOVES | IDENTITIES | CONSTANTS | _names("""
    abs ceil clamp conj convert_element_type cummax cummin floor imag max min neg real reduce_max reduce_min
    reduce_window_max reduce_window_min round scatter-max scatter-min select_n sign
""")
# fmt: on
"""Primitives that do not round: they move, compare or negate values.

`convert_element_type` counts as one: it rounds only to a narrower dtype, in which what follows rounds as much again.
"""


NUMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sqrt": np.sqrt, "square": np.square, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "is_finite": np.isfinite, "not": np.invert, "and": np.bitwise_and, "or": np.bitwise_or,
}  # fmt: skip
"""Elementwise primitives to numpy's function that rounds exactly as XLA does (IEEE 754 requires it).

Of integers numpy's quotient is a float, unlike XLA's: `div` is one for floats only.
"""


KINDS: dict[str, frozenset[str]] = {
    "elementwise": ELEMENTWISE,
    "identity": IDENTITIES,
    "view": VIEWS,
    "move": MOVES,
    "reduction": REDUCTIONS,
    "index of an extreme": ARG_REDUCTIONS,
    "cumulative": CUMULATIVE,
    "windowed": WINDOWED,
    "scatter": SCATTERS,
    "contraction": CONTRACTIONS,
    "linear algebra": LINEAR_ALGEBRA,
    "constant": CONSTANTS,
    "call": frozenset(CALLS),
    "control flow": CONTROL_FLOW,
    "randomness": RANDOMNESS,
}
"""Every kind to its primitives; a primitive is of one kind."""


OTHER_RELEASES = {
    "closed_call": "until jax 0.11",
    "one_minus_square": "from jax 0.12 on",
    **dict.fromkeys(OLD_CALLS, "until jax 0.6"),
}
"""Primitives of the table that some supported release of jax lacks, and which has them."""


@functools.cache
def is_jax_primitive(primitive: Any) -> bool:
    """Whether a primitive is one of jax's own; anybody can make another of the same name."""
    modules = [module for name, module in sys.modules.copy().items() if name.partition(".")[0] == "jax"]
    return any(primitive is value for module in modules for value in tuple(vars(module).values()))
