"""Ports traced with other sizes: the same program but for sizes, another one, or none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.programs.other_sizes import _Comparison

SIZES = (5, 69, 133)
MASK = np.ones((200, 200), bool)


def places(function, sizes=SIZES):
    """Where a function of `(n, 4)` is another program with another `n`."""
    jaxprs = [jax.make_jaxpr(function)(jnp.zeros((size, 4))) for size in sizes]
    return list(_Comparison(sizes).compare(jaxprs, ()))


SAME = [
    lambda x: x.mean(0) / jnp.sqrt(x.shape[0]),
    lambda x: x.var(0, ddof=1),
    lambda x: (x @ x.T) / x.shape[0] ** 2,
    lambda x: jnp.where(np.tril(np.ones((x.shape[0],) * 2, bool)), x @ x.T, 0.0).sum(),
    lambda x: jax.lax.scan(lambda c, row: (c + row, c), x[0], x),
    lambda x: jax.vmap(lambda row: jax.nn.softmax(row))(x).reshape(-1),
    lambda x: jnp.concatenate([x, x[:3]]) * (1 + 1 / x.shape[0]),
]


@pytest.mark.parametrize("function", SAME)
def test_programs_that_differ_by_sizes_are_the_same(function):
    assert places(function) == []


OTHER = [
    lambda x: x * (2 if x.shape[0] > 64 else 1),
    lambda x: x * (2 if x.shape[0] > 128 else 1),
    lambda x: x + 1 if x.shape[0] > 64 else x,
    lambda x: jnp.tanh(x) if x.shape[0] > 64 else jnp.sin(x),
    lambda x: jax.jit(lambda y: y * (3 if x.shape[0] > 100 else 2))(x),
    lambda x: jax.lax.scan(lambda c, row: (c + row * (1 + (x.shape[0] > 64)), c), x[0], x),
    lambda x: sum(x[index] for index in range(x.shape[0])),
    lambda x: x[: min(x.shape[0], 32)].sum(0),
    lambda x: x.sum(0) / min(x.shape[0], 64),
]


@pytest.mark.parametrize("function", OTHER)
def test_a_program_that_asks_for_its_size_is_another(function):
    assert places(function)


@pytest.mark.parametrize("function", SAME[:3])
def test_two_sizes_are_enough_for_plain_programs(function):
    assert places(function, (5, 133)) == []


def test_two_sizes_show_another_program_too():
    assert places(OTHER[0], (5, 133))
    assert places(OTHER[7], (5, 133))
