"""Evaluation operation by operation gives what the compiled program gives, with keys among its values too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from named import trace_named

from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.eager import compile_equation, evaluate_eagerly
from equiv.programs.transform import make_draws_inputs

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
FIXED = jax.random.key(42)


def normal(key, *shape):
    return jax.random.normal(key, shape)


def looped(x):
    """A loop over keys that hands keys on, and one that makes them."""

    def turn(h, key):
        one, two = jax.random.split(key)
        return h * normal(one, 4), two

    h, keys = jax.lax.scan(turn, x, jax.random.split(FIXED, 3))
    return jax.lax.fori_loop(0, 2, lambda i, h: h + normal(jax.random.fold_in(keys[i], i), 4), h)


def reversed_loop(x):
    return jax.lax.scan(lambda h, key: (h * normal(key, 4), key), x, jax.random.split(FIXED, 3), reverse=True)[0]


def chosen(x):
    """A key that is chosen by what the model computes, and one in a branch."""
    bank = jnp.stack([FIXED, jax.random.key(3), jax.random.fold_in(FIXED, 1)])
    key = bank[jnp.argmax(x[:, 0])]
    return jax.lax.cond(x.sum() > 0, lambda x: x * normal(key, 4), lambda x: x + normal(key), x)


def rearranged(x):
    bank = jnp.concatenate([jax.random.split(FIXED, 4).reshape(2, 2).T, jax.random.split(FIXED, (1, 2))])
    return x * jax.vmap(jax.vmap(lambda key: normal(key)))(bank).sum()


@pytest.mark.quick(4)
@pytest.mark.parametrize("float64", [False, True], ids=["native", "float64"])
@pytest.mark.parametrize("function", [looped, reversed_loop, chosen, rearranged])
def test_a_program_with_keys_among_its_values_is_evaluated(function, float64):
    x = X.astype("float64") if float64 else X
    with jax.enable_x64(float64):
        program = trace_named("p", lambda given: {"output": function(given["x"])}, {"x": jax.eval_shape(lambda: x)})
        program = make_draws_inputs(program, float64)
        compiled = np.asarray(jax.jit(jaxpr_as_fun(program.jaxpr), compiler_options=FAST_COMPILE_OPTIONS)(x)[0])
        (eager,) = evaluate_eagerly(program.jaxpr, [x])
    assert eager.dtype == compiled.dtype
    assert np.max(np.abs(eager - compiled)) < 64 * np.finfo(x.dtype).eps * np.max(np.abs(compiled))


def test_a_reshape_may_take_axes_in_another_order():
    program = jax.make_jaxpr(lambda x: jax.lax.reshape(x, (6, 2), dimensions=(1, 0)))(X)
    (eager,) = evaluate_eagerly(program, [X])
    assert np.array_equal(eager, X.T.reshape(6, 2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sum_of_narrow_numbers_rounds_as_xla_does(dtype):
    """Not every partial sum is rounded to the narrow dtype, as numpy would do."""
    x = jnp.asarray(np.random.default_rng(0).normal(1.0, size=(512, 64)), dtype)
    program = jax.make_jaxpr(lambda x: jax.lax.reduce_sum(x, axes=(0,)))(x)
    (eager,) = evaluate_eagerly(program, [x])
    assert np.array_equal(eager, jax.jit(jaxpr_as_fun(program))(x)[0])
    assert not np.array_equal(eager, np.sum(np.asarray(x), axis=0, dtype=x.dtype))


def test_an_equation_with_a_body_is_compiled_once():
    """`shard_map`: operation by operation it took a hundred seconds for a few runs."""
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("rows",))
    rows = jax.sharding.PartitionSpec("rows")
    program = jax.make_jaxpr(jax.shard_map(lambda x: jnp.tanh(x) * 2, mesh=mesh, in_specs=rows, out_specs=rows))(X)
    before = compile_equation.cache_info()
    for _ in range(3):
        (eager,) = evaluate_eagerly(program, [X])
        np.testing.assert_allclose(eager, np.tanh(X) * 2, rtol=1e-6)
    after = compile_equation.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)


def test_where_an_array_is_changes_no_number():
    """Outside of its mesh jax refuses a constraint that a port was traced with."""
    mesh = jax.sharding.AbstractMesh((1,), ("rows",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    program = jax.make_jaxpr(lambda x: jax.lax.with_sharding_constraint(x * 2, rows) + 1)(X)
    assert "sharding_constraint" in str(program)
    (eager,) = evaluate_eagerly(program, [X])
    assert np.array_equal(eager, X * 2 + 1)
