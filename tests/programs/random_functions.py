"""Functions that draw, which tests wrap in all kinds of ways, programs of them, and the values in a program."""

import jax
import jax.numpy as jnp
import numpy as np
from named import trace_named

from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr

KEY = jax.random.key(7)
X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def dropout(key, x, rate=0.5):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def layers(key, x, body=dropout, **options):
    """Dropout in five layers, each with its own key."""
    return jax.lax.scan(lambda h, key: (jnp.sin(body(key, h)) + x, None), x, jax.random.split(key, 5), **options)[0]


def carried(key, x, body=dropout):
    """Dropout in five layers; the key travels with the values, as in `hk.scan`."""

    def turn(carry, _):
        key, mine = jax.random.split(carry[1])
        return (jnp.sin(body(mine, carry[0])) + x, key), None

    return jax.lax.scan(turn, (x, key), None, length=5)[0][0]


def held(key, x, body=dropout):
    """Dropout in five layers that all have one key."""
    return jax.lax.scan(lambda h, _: (jnp.sin(body(key, h)) + x, None), x, None, length=5)[0]


def handed_on(key, x, body=dropout):
    """The same; the key is in the carry, and stays what it is."""
    return jax.lax.scan(lambda carry, _: ((body(carry[1], carry[0]), carry[1]), None), (x, key), None, length=5)[0][0]


def remat(function):
    return lambda key, x: jax.checkpoint(lambda x: jnp.sin(function(key, jnp.sin(x))))(x)


def program_of(function, *arrays):
    """A function of a key and arrays as a program; an input `x0` for each array."""
    specs = {f"x{index}": jax.ShapeDtypeStruct(array.shape, array.dtype) for index, array in enumerate(arrays)}
    with_key = {**specs, "key": jax.eval_shape(lambda: KEY)}
    return trace_named(
        "p", lambda named: {"output": function(named["key"], *(named[name] for name in specs))}, with_key
    )


def avals(jaxpr):
    """`(primitive, aval)` of every value in a jaxpr, bodies and parameters included."""
    jaxpr, _ = open_jaxpr(jaxpr)
    yield from (("input", var.aval) for var in (*jaxpr.invars, *jaxpr.constvars))
    for eqn in jaxpr.eqns:
        yield from ((eqn.primitive.name, var.aval) for var in eqn.outvars)
        for body in inner_jaxprs(eqn):
            yield from avals(body)
