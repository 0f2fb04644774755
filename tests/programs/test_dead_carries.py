"""Carries of a `while` that nothing needs are removed, and so is what they are computed from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from named import make_program

from equiv.programs.dead_carries import remove_dead
from equiv.programs.jaxpr import visit_equations
from equiv.programs.transform import replay_draws


def pruned(function, *inputs):
    """The jaxpr of a function without what is dead, which inputs are left, and the carries of its loops."""
    closed = jax.make_jaxpr(function)(*inputs)
    jaxpr, used = remove_dead(closed.jaxpr, [True] * len(closed.out_avals), [False] * len(inputs))
    carries = [len(eqn.outvars) for _, eqn in visit_equations(jaxpr) if eqn.primitive.name == "while"]
    left = [array for array, stays in zip(inputs, used, strict=True) if stays]
    expected, (found, *_) = function(*inputs), jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*left)
    np.testing.assert_array_equal(expected, found)
    return used, carries


def count(x, y, z):
    """Carries: a count that the test needs, what is returned, what that needs a turn later, and one for itself."""

    def body(carry):
        turn, result, before, own = carry
        return turn + 1, result + before, before * 2, jnp.sin(own) + z

    return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, x, y, z))[1]


def swapped(x, y, z):
    """Two carries that take turns: one is needed where the other is, and a third is not."""
    return jax.lax.while_loop(
        lambda c: c[3] < 3, lambda c: (c[1], c[0], c[2] + c[0], c[3] + 1), (x, y, z, jnp.int32(0))
    )[0]


def nested(x, y, z):
    """A loop in a loop, whose dead carry keeps one of the outer alive."""

    def inner(carry):
        kept = jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + 1, c[2] * 2), (0, carry[1], carry[2]))
        return carry[0] + 1, kept[1], kept[2]

    return jax.lax.while_loop(lambda c: c[0] < 3, inner, (0, x, z))[1] + y


def all_needed(x, y, z):
    return jax.lax.while_loop(lambda c: c[1] < z, lambda c: (c[0] + y, c[1] + 1), (x, y))[0]


@pytest.mark.parametrize(
    ("function", "carries", "used"),
    [
        (count, [3], [True, True, False]),
        (jax.jit(count), [3], [True, True, False]),
        (swapped, [3], [True, True, False]),
        (nested, [2, 2], [True, True, False]),
        (lambda x, y, z: jax.lax.scan(lambda c, _: (count(c, y, z), None), x, None, 2)[0], [3], [True, True, False]),
        (all_needed, [2], [True] * 3),
    ],
    ids=["plain", "jit", "taking-turns", "nested", "in-a-scan", "all-needed"],
)
def test_only_what_a_result_or_the_test_needs_stays(function, carries, used):
    found, left = pruned(function, *map(jnp.float32, (1.5, 2.5, 5.5)))
    assert (list(found), left) == (used, carries)


@pytest.mark.parametrize(("returned", "draws"), [(1, 0), (2, 1)])
def test_a_draw_that_no_output_needs_is_none(returned, draws):
    def function(key, x):
        noise = jax.random.normal(jax.random.fold_in(key, 1), x.shape)
        body = lambda c: (c[0] + 1, jnp.sin(c[1]), c[2] + noise, jax.random.split(c[3])[0])  # noqa: E731
        return jax.lax.while_loop(lambda c: c[0] < 3, body, (0, x, x, key))[returned]

    key, x = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((2,), "float32")
    program = make_program("p", jax.make_jaxpr(function)(key, x), ("key", "batch/x"), ["output"])
    replayed, keyed = replay_draws(program)
    assert len(replayed.draws) == len(keyed.draws) == draws
