"""Masks that depend on no input are named by their content, however they are made."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from programs.prover.numbered import names

N = 4
S = (N, N)


def masked(mask):
    """A function that keeps what a mask keeps; the mask is made while it is traced."""
    return lambda x: jnp.where(mask(), x, -1e30)


CAUSAL = {
    "ones": lambda: jnp.tril(jnp.ones(S, bool)),
    "numpy": lambda: np.tril(np.ones(S, bool)),
    "positions": lambda: jnp.arange(N)[:, None] >= jnp.arange(N),
    "positions of eight bits": lambda: jnp.arange(N, dtype="int8")[:, None] >= jnp.arange(N, dtype="int8"),
    "the opposite of the opposite": lambda: ~jnp.triu(jnp.ones(S, bool), 1),
    "a slice of a longer one": lambda: jnp.tril(jnp.ones((2 * N, 2 * N), bool))[N:, N:],
    "two halves": lambda: jnp.concatenate([jnp.tril(jnp.ones((2, N), bool)), jnp.tril(jnp.ones((2, N), bool), 2)]),
    "Flax's, of floats": lambda: nn.make_causal_mask(jnp.ones((1, N)))[0, 0] > 0,
    "Flax's, in bfloat16": lambda: nn.make_causal_mask(jnp.ones((1, N)), dtype="bfloat16")[0, 0],
}
OTHERS = {
    "transposed": lambda: jnp.triu(jnp.ones(S, bool)),
    "one place further": lambda: jnp.tril(jnp.ones(S, bool), 1),
    "without the diagonal": lambda: jnp.arange(N)[:, None] > jnp.arange(N),
    "its opposite": lambda: ~jnp.tril(jnp.ones(S, bool)),
    "one place more": lambda: np.tril(np.ones(S, bool)) | (np.arange(N * N).reshape(S) == N - 1),
    "one row for all": lambda: jnp.tril(jnp.ones(S, bool))[1],
    "everything": lambda: jnp.ones(S, bool),
}


@pytest.mark.parametrize("how", CAUSAL)
def test_a_mask_is_named_by_its_content(how):
    """Without any rewrite."""
    assert names(masked(CAUSAL[how]), S) == names(masked(CAUSAL["ones"]), S)


@pytest.mark.parametrize("how", OTHERS)
def test_another_mask_has_another_name(how):
    assert names(masked(OTHERS[how]), S) != names(masked(CAUSAL["ones"]), S)


def test_a_mask_of_rows_is_none_of_columns():
    rows, columns = (masked(lambda axis=axis: jnp.expand_dims(jnp.arange(N) > 1, axis)) for axis in (0, 1))

    assert names(rows, S) != names(columns, S)


def test_a_mask_that_an_input_decides_is_not_known():
    assert names(lambda x: jnp.where(x > jnp.arange(N), x, 0), S) != names(masked(CAUSAL["ones"]), S)


def test_an_empty_mask_has_a_name():
    assert names(lambda x: jnp.where(jnp.ones((0, N), bool) & (jnp.arange(N) > 1), x, 0), (0, N))
