"""Long scans move as they do operation by operation; what cannot be compiled so is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from equiv.compat import enable_x64
from equiv.programs import nudge_loops
from equiv.programs.nudge_loops import LONG_LOOP, nudged_scan
from equiv.programs.nudge_operations import evaluate_nudged

XS = np.linspace(-1.0, 1.9, 2 * LONG_LOOP * 8, dtype="float32").reshape(2 * LONG_LOOP, 8)
START = np.linspace(0.1, 0.9, 8, dtype="float32")


def cell(carry, x):
    """With a call inside, results of integers, and an output that is not a carry."""
    count, h = carry
    h = 0.5 * jax.nn.sigmoid(h * 1.5 + x) + jax.jit(jnp.tanh)(x)
    return (count + 1, h), (h[::-1] / 3, count)


def forward(start, xs):
    before = start * 1.1
    return jax.lax.scan(cell, (0, before), xs)


def backward(start, xs):
    """Its derivative has a scan from the last slice to the first."""
    return jax.grad(lambda one: jax.lax.scan(cell, (0, one), xs)[1][0].sum())(start)


def nudged_both_ways(function, arrays, monkeypatch):
    """The values of a function as they are, compiled with every result moved, and operation by operation."""
    closed = jax.make_jaxpr(function)(*arrays)
    compiled = evaluate_nudged(closed, arrays)
    nudged_scan.cache_clear()
    monkeypatch.setattr(nudge_loops, "LONG_LOOP", 10**6)
    single = evaluate_nudged(closed, arrays)
    nudged_scan.cache_clear()
    return jaxpr_as_fun(closed)(*arrays), compiled, single


@pytest.mark.parametrize("function", [forward, backward])
@pytest.mark.parametrize("float64", [False, True], ids=["native", "float64"])
def test_a_compiled_loop_moves_as_its_operations_do(function, float64, monkeypatch):
    dtype = "float64" if float64 else "float32"
    arrays, size = [START.astype(dtype), XS.astype(dtype)], float(np.finfo(dtype).eps)
    with enable_x64(float64):
        base, compiled, single = nudged_both_ways(function, arrays, monkeypatch)
    for own, one, other in zip(map(np.asarray, base), compiled, single, strict=True):
        assert own.dtype == one.dtype == other.dtype
        if own.dtype.kind == "f":
            scale = np.max(np.abs(own)) * size
            moves, others = (np.abs(found - own) for found in (one, other))
            assert np.max(moves) > scale / 4
            assert 0.2 < np.linalg.norm(moves) / np.linalg.norm(others) < 5
            assert np.max(moves) < 50 * scale
        else:
            assert np.array_equal(own, one)


def test_moves_of_a_compiled_loop_are_the_same_bits(monkeypatch):
    """Where no product is added to, which a compiler may round once: each iteration moves another way."""

    def turn(carry, x):
        return carry * x, carry

    arrays = [START, np.abs(XS) + 0.5]
    base, compiled, single = nudged_both_ways(lambda s, x: jax.lax.scan(turn, s, x), arrays, monkeypatch)
    assert all(np.array_equal(one, other) for one, other in zip(compiled, single, strict=True))
    assert not np.array_equal(compiled[0], base[0])


def test_digits_that_cancel_inside_a_compiled_loop_are_lost():
    """The compiler must not see that the sum cancels."""
    closed = jax.make_jaxpr(lambda xs: jax.lax.scan(lambda c, x: (c, (x + 1e4) - 1e4), 0.0, xs)[1])(XS)
    (found,) = evaluate_nudged(closed, [XS])
    assert np.max(np.abs(found - np.asarray(jaxpr_as_fun(closed)(XS)[0]))) > 1e4 * 2.0**-24


def noisy(carry, x):
    return carry + jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (8,)), x


def asked(carry, x):
    return carry + jax.pure_callback(lambda one: one, jax.ShapeDtypeStruct((8,), "float32"), x), x


BODIES = {
    "bfloat16": lambda carry, x: ((carry.astype("bfloat16") * 3).astype("float32"), x),
    "complex": lambda carry, x: (carry + jnp.abs(x + 1j), x),
    "a loop": lambda carry, x: (jax.lax.while_loop(lambda s: s[0] < 1, lambda s: s * 1.5 + 1, carry), x),
    "a branch": lambda carry, x: (jax.lax.cond(x[0] < 1, jnp.sin, jnp.cos, carry), x),
    "keys": noisy,
    "a host function": asked,
    "nothing that rounds": lambda carry, x: (jnp.maximum(carry, x), x),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_compiler_may_change_runs_operation_by_operation(name):
    closed = jax.make_jaxpr(lambda start, xs: jax.lax.scan(BODIES[name], start, xs))(START, XS)
    (loop,) = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert nudged_scan(loop) is None


def test_a_short_loop_is_not_compiled():
    for length, is_compiled in ((LONG_LOOP - 1, False), (LONG_LOOP, True)):
        closed = jax.make_jaxpr(lambda start, xs: jax.lax.scan(cell, (0, start), xs))(START, XS[:length])
        (loop,) = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name == "scan"]
        assert (nudged_scan(loop) is not None) == is_compiled
