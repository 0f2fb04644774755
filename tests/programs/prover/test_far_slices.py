"""A slice of what is computed is computed from slices, and put together again it is the whole."""

import jax
import jax.numpy as jnp
import pytest
from named import make_program

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.value_numbering import Numbering, number_program

NONE, ALL = frozenset[str](), frozenset(CONDITIONS)
X, K, B = (3, 4), (4, 4), (4,)
join = jnp.concatenate


def names(function, shapes, rules):
    """Names of a function's results, slices computed from slices."""
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    outputs = [f"output/{index}" for index in range(len(closed.jaxpr.outvars))]
    program = make_program("program", closed, [f"input {i}" for i in range(len(shapes))], outputs)
    numbering = Numbering(Algebra(rules, far_slices=True))
    return [value.name for value in number_program(program, numbering).values()]


SLICED_BEFORE = {
    "a head on the last position": (
        lambda x, k, b: (jax.nn.gelu(x) @ k + b)[-1],
        lambda x, k, b: jax.nn.gelu(x[-1]) @ k + b,
        (X, K, B),
    ),
    "columns of a product": (lambda x, k: (x @ k)[:, 1:3], lambda x, k: x @ k[:, 1:3], (X, K)),
    "a row of a softmax": (lambda x: jax.nn.softmax(x)[1], lambda x: jax.nn.softmax(x[1]), (X,)),
    "a column that was a row": (lambda x: jnp.tanh(x.T)[1], lambda x: jnp.tanh(x[:, 1]), (X,)),
    "computed halves put together": (lambda x: join(jnp.split(jnp.sin(x.T), 2)), lambda x: jnp.sin(x).T, (X,)),
    "computed rows put together": (
        lambda x, y: jnp.stack([(x * y.T)[i] for i in range(4)], 1),
        lambda x, y: (x * y.T).T,
        (K, K),
    ),
    "a slice of a computed slice": (lambda x: jnp.sin(x[1:])[1:, 1:][:, :2], lambda x: jnp.sin(x)[2:, 1:3], (X,)),
}

SLICED_OTHERWISE = {
    "a row of a softmax along rows": (lambda x: jax.nn.softmax(x, 0)[1], lambda x: jax.nn.softmax(x[1], 0), (X,)),
    "a row of a cumulative sum": (lambda x: jnp.cumsum(x, 0)[1], lambda x: jnp.cumsum(x[1:2], 0)[0], (X,)),
    "rows of a product for its columns": (lambda x, y: (x @ y)[:2], lambda x, y: x @ y[:, :2], ((4, 4), (4, 2))),
    "another computed row": (lambda x: jnp.sin(x)[1], lambda x: jnp.sin(x[2]), (X,)),
    "computed halves in turn": (lambda x: join(jnp.split(jnp.sin(x), 2, 1)[::-1], 1), jnp.sin, (X,)),
    "computed rows as columns": (
        lambda x, y: jnp.stack([(x * y.T)[i] for i in range(4)], 1),
        lambda x, y: x * y.T,
        (K, K),
    ),
}


@pytest.mark.parametrize("rules", [NONE, ALL])
@pytest.mark.parametrize("pair", SLICED_BEFORE)
def test_slices_are_computed_before_or_after(pair, rules):
    one, other, shapes = SLICED_BEFORE[pair]
    assert names(one, shapes, rules) == names(other, shapes, rules)


@pytest.mark.parametrize("rules", [NONE, ALL])
@pytest.mark.parametrize("pair", SLICED_OTHERWISE)
def test_slices_of_something_else_have_another_name(pair, rules):
    one, other, shapes = SLICED_OTHERWISE[pair]
    assert names(one, shapes, rules) != names(other, shapes, rules)


@pytest.mark.parametrize("loss", [lambda made: made.sum(), lambda made: (made**2).mean()])
def test_a_gradient_through_the_last_position_is_proved(loss):
    def left(x, k, b):
        return loss((jnp.tanh(x) @ k + b)[-1])

    def right(x, k, b):
        return loss(jnp.tanh(x[-1:]) @ k + b)

    ours, theirs = (names(jax.grad(one, (1, 2)), (X, K, B), ALL) for one in (left, right))
    assert ours == theirs
