"""Depth: how many rounded operations in a row lead to an output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named import by_text, trace_named

from equiv.programs.rounding_depth import rounding_depths

X = np.zeros((3, 7), "float32")


def depth(function, *arrays):
    specs = {f"x{index}": jax.ShapeDtypeStruct(array.shape, array.dtype) for index, array in enumerate(arrays)}
    program = trace_named("p", lambda named: {"output": function(*named.values())}, specs)
    return by_text(rounding_depths(program))["output"]


def scanned(x, length=5, turn=jnp.sin):
    return jax.lax.scan(lambda h, _: (turn(h), None), x, None, length=length)[0]


@jax.custom_vjp
def doubled_sine(x):
    return jnp.sin(x) * 2


doubled_sine.defvjp(lambda x: (doubled_sine(x), x), lambda x, g: (g * jnp.cos(x),))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x, 0),
        (lambda x: -x[:2].T.reshape(-1), 0),
        (lambda x: jnp.maximum(x, 0), 0),
        (lambda x: x.max(1), 0),
        (lambda x: jnp.argmax(x), 0),
        (lambda x: jnp.where(x > jnp.sin(x), x, 0), 1),
        (lambda x: x + 1, 1),
        (lambda x: jnp.sin(jnp.exp(x)) * x, 3),
        (lambda x: jnp.sin(x) + jnp.exp(jnp.cos(x)), 3),
        (lambda x: x @ x.T, 7),
        (lambda x: jnp.sin(x) @ jnp.exp(jnp.exp(x)).T, 9),
        (lambda x: x.T @ x, 3),
        (lambda x: x.sum(), 21),
        (lambda x: x.sum(0), 3),
        (lambda x: x.sum(1), 7),
        (lambda x: jnp.prod(x), 21),
        (lambda x: jnp.cumsum(x, 1), 7),
        (lambda x: jnp.cumsum(x, 0), 3),
        (lambda x: jax.lax.conv(x[None, None], x[None, None, :2, :3], (1, 1), "VALID"), 6),
        (lambda x: jnp.concatenate([jnp.sin(jnp.sin(x)), x]), 2),
        (jax.jit(lambda x: jnp.sin(x)), 1),
        (lambda x: jnp.sin(jax.jit(jnp.exp)(jnp.sin(x))), 3),
        (jax.checkpoint(lambda x: jnp.sin(x)), 1),
        (doubled_sine, 2),
        (scanned, 5),
        (lambda x: jnp.sin(scanned(jnp.sin(x))), 7),
        (lambda x: scanned(x, turn=lambda h: jnp.sin(h @ h.T @ h)), 5 * (7 + 3 + 1)),
        (lambda x: scanned(x, 4, lambda h: scanned(h, 3)), 12),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, lambda x: jnp.exp(jnp.exp(x)), x), 2),
    ],
    ids=[
        *("nothing", "moves", "relu", "max", "argmax", "select", "sum-of-two", "chain", "longest-branch", "dot"),
        *("dot-of-deep", "dot-of-3", "sum", "sum-of-3", "sum-of-7", "product", "cumsum-of-7", "cumsum-of-3", "conv"),
        *("concatenate", "jit", "jit-in-chain", "remat", "custom_vjp", "scan", "scan-in-chain", "scan-of-dots"),
        *("nested-scan", "cond"),
    ],
)
def test_depth_is_the_longest_row_of_rounded_operations(function, expected):
    assert depth(function, X) == expected


def test_every_output_has_its_own_depth():
    program = trace_named(
        "p",
        lambda named: {"shallow": named["x"], "deep": jnp.sin(jnp.sin(named["x"]))},
        {"x": jax.ShapeDtypeStruct((3,), "float32")},
    )
    assert by_text(rounding_depths(program)) == {"shallow": 0, "deep": 2}


def test_whole_numbers_round_nothing():
    assert depth(lambda x: x * 3 + x.sum(), np.zeros(5, "int32")) == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_dot_counts_the_terms_that_it_adds(rows, terms, columns):
    assert depth(jnp.dot, np.zeros((rows, terms), "float32"), np.zeros((terms, columns), "float32")) == terms


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([jnp.sin, jnp.exp, jnp.negative, jnp.ravel]), max_size=8), st.integers(1, 6))
def test_a_chain_counts_what_rounds_and_a_scan_repeats_it(functions, length):
    def chain(x):
        for function in functions:
            x = function(x)
        return x

    rounded = sum(function in (jnp.sin, jnp.exp) for function in functions)
    x = np.zeros(3, "float32")
    assert depth(chain, x) == rounded
    assert depth(lambda x: scanned(x, length, chain), x) == rounded * length
