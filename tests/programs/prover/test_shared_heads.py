"""Attention whose heads share keys and values: repeated for each of them, or with an axis that keys do not have."""

import jax
import jax.numpy as jnp
import pytest
from named import make_program

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS, LINEAR, REORDERED_SUMS
from equiv.programs.prover.value_numbering import Numbering, number_program

BATCH, TIME, HEADS, GROUPS, SIZE = 2, 5, 6, 3, 4
QUERY, KEY = (BATCH, TIME, HEADS, SIZE), (BATCH, TIME, GROUPS, SIZE)


def names(function, shapes=(QUERY, KEY, KEY), rules=frozenset()):
    """Names of a function's results, and the rewrites that applied."""
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    outputs = [f"output/{n}" for n in range(len(closed.out_avals))]
    program = make_program("program", closed, [f"input {n}" for n in range(len(shapes))], outputs)
    algebra = Algebra(rules)
    return [value.name for value in number_program(program, Numbering(algebra)).values()], algebra.applied


def repeated(repeat):
    """Attention of all heads, after keys and values are repeated."""

    def attention(q, k, v):
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, repeat(k)) / 2, -1)
        return jnp.einsum("bhts,bshd->bthd", weights, repeat(v))

    return attention


def grouped(q, k, v):
    """Attention with an axis of groups and one of the heads in each."""
    q = q.reshape(BATCH, TIME, GROUPS, HEADS // GROUPS, SIZE)
    weights = jax.nn.softmax(jnp.einsum("btngd,bsnd->bngts", q, k) / 2, -1)
    return jnp.einsum("bngts,bsnd->btngd", weights, v).reshape(QUERY)


def spread(k):
    wide = jnp.broadcast_to(k[:, :, :, None], (BATCH, TIME, GROUPS, HEADS // GROUPS, SIZE))
    return wide.reshape(QUERY)


def gradients(function):
    return jax.grad(lambda *given: jnp.sum(jnp.sin(function(*given))), (0, 1, 2))


WAYS = {"repeat": lambda k: jnp.repeat(k, HEADS // GROUPS, 2), "broadcast": spread}
OTHERS = {
    "tiled": lambda k: jnp.tile(k, (1, 1, HEADS // GROUPS, 1)),
    "turned": lambda k: jnp.repeat(k[:, :, ::-1], HEADS // GROUPS, 2),
    "the first for all": lambda k: jnp.repeat(k[:, :, :1], HEADS, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_repeated_keys_are_grouped_heads(way):
    assert names(repeated(WAYS[way])) == names(grouped)
    rules = frozenset((LINEAR, REORDERED_SUMS))
    one, other = (names(gradients(function), rules=rules) for function in (repeated(WAYS[way]), grouped))
    assert one[0] == other[0]
    assert one[1] == rules


@pytest.mark.parametrize("way", OTHERS)
def test_other_heads_are_not_proved(way):
    every = frozenset(CONDITIONS)
    assert names(repeated(OTHERS[way]), rules=every)[0] != names(grouped, rules=every)[0]
    one, other = (names(gradients(function), rules=every)[0] for function in (repeated(OTHERS[way]), grouped))
    assert not set(one) & set(other)


def per_example(reduce):
    """Derivatives of a loss by each example's own heads, put together."""
    return lambda q, k: reduce(jnp.einsum("bthd,bshd->bhts", q, k).transpose(1, 0, 2, 3))


def test_a_sum_over_a_batch_axis_is_one_contraction():
    shapes, rules = (QUERY, QUERY), frozenset((LINEAR, REORDERED_SUMS))
    summed = names(per_example(lambda x: x.sum(0)), shapes, rules)
    assert summed[0] == names(lambda q, k: jnp.einsum("bthd,bshd->bts", q, k), shapes, rules)[0]
    for other in (lambda q, k: jnp.einsum("bthd,bshd->hts", q, k), lambda q, k: jnp.einsum("bthd,bsgd->bts", q, k)):
        assert summed[0] != names(other, shapes, rules)[0]
    assert names(per_example(lambda x: x.max(0)), shapes, rules)[0] != summed[0]
