"""Names that value numbering gives to the results of a function, and loops that several of its tests number."""

import jax
import jax.numpy as jnp
from jax import lax
from named import make_program

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.value_numbering import Numbering, number_program
from equiv.programs.transform import drop_random_outputs

ALL = frozenset(CONDITIONS)
RULES = {"no rewrites": frozenset(), "all rewrites": ALL}
N = 3
S, V = (N, N), (N,)


def names(function, *inputs, rules=frozenset()):
    """Names of a function's results; inputs are shapes or `(shape, dtype)`."""
    structs = [
        jax.ShapeDtypeStruct(*(one if one and isinstance(one[0], tuple) else (one, "float32"))) for one in inputs
    ]
    closed = jax.make_jaxpr(function)(*structs)
    outputs = [f"output/{index}" for index in range(len(closed.jaxpr.outvars))]
    program = drop_random_outputs(make_program("program", closed, [f"input {i}" for i in range(len(structs))], outputs))
    return [value.name for value in number_program(program, Numbering(Algebra(rules))).values()]


def scan_sum(x, **options):
    return lax.scan(lambda c, row: (jnp.tanh(c + row), c * row), jnp.ones(N), x, **options)


def twice(x, inner):
    """A loop in a loop over the same array; `inner`: which of the two rows is added."""

    def outer(total, one):
        def turn(row, other):
            return row + (other if inner else one), None

        return total + lax.scan(turn, jnp.zeros(N), x)[0] * one, None

    return lax.scan(outer, jnp.zeros(N), x)[0]
