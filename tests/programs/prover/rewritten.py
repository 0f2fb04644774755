"""Shared by the tests of rewrites: the proof that two functions are the same, and functions that rewrites are about."""

import jax
import jax.numpy as jnp
from named import make_program, output_named

from equiv.core.leaves import LeafTable
from equiv.programs.program import Programs
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.numbered_port import NumberedPort
from equiv.programs.prover.prove import prove
from equiv.programs.prover.value_numbering import Numbering, number_program

ALL = frozenset(CONDITIONS)
S, V, BIT, INDEX = ((3, 3), "float32"), ((3,), "float32"), ((3, 3), "bool"), ((4,), "int32")


def traced(function, *inputs):
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(*one) for one in inputs))
    return make_program("eval __call__", closed, [f"input {i}" for i in range(len(inputs))], ("output",))


def side(function, *inputs):
    programs = Programs("some", False, (traced(function, *inputs),), None, None)
    return NumberedPort(programs, LeafTable("some", ()), lambda _: None)


def proof(one, other, *inputs):
    """The proof that two functions are the same, or None."""
    place = output_named("eval __call__: output")
    return prove(side(one, *inputs), side(other, *inputs), frozenset()).get((place, place, False))


def one_pass(x, axis=-1, ddof=0.0, scale=1.0):
    """The variance as mean of squares minus square of mean, as Flax has it."""
    n = x.shape[axis]
    return (x**2).sum(axis) / (n - ddof) - scale * jnp.square(x.sum(axis) / n)


def two_pass(x, axis=-1):
    n = x.shape[axis]
    return jnp.square(x - x.sum(axis, keepdims=True) / n).sum(axis) / n


def mask(x, m):
    return jnp.where(m, x, 0.0)


def softmax(x, top=None):
    weights = jnp.exp(x - (x if top is None else top).max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def masked(large):
    """Attention's weights where a mask is kept; the others have a large negative logit."""
    return lambda x, m: softmax(jnp.where(m, x, large))


def norm(statistic):
    """The derivative of a norm over the last axis."""
    return jax.grad(lambda x, v: (v * (x - x.mean(-1, keepdims=True)) / jnp.sqrt(statistic(x) + 1)[..., None]).sum())


def causal(large, last=0):
    """Attention's weights where a row sees what comes before it, and so many places from there on."""
    return lambda x: masked(large)(x, jnp.tril(jnp.ones((3, 3), bool), last))


def under(function, inputs, rules):
    """The name of a function's result under some rewrites."""
    return number_program(traced(function, *inputs), Numbering(Algebra(frozenset(rules))))[
        output_named("eval __call__: output")
    ].name
