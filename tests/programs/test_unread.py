"""Elements that no call reads: found where they are unread, never claimed where they may be read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.programs.unread import needed_inputs


def unread(function, *shapes):
    """Number of elements of each argument that are not needed."""
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    found = needed_inputs(jax.make_jaxpr(function)(*arguments))
    return [
        int(np.prod(shape)) - (0 if one is None else int(np.prod([mark.sum() for mark in one])))
        for shape, one in zip(shapes, found, strict=True)
    ]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, w: jnp.split(x @ w, 2, -1)[0], 16),
        (lambda x, w: (x @ w)[:, 1:4], 20),
        (lambda x, w: (x @ w)[:, ::2], 16),
        (lambda x, w: jax.nn.relu(x @ w).T[:3], 20),
        (lambda x, w: jax.jit(lambda y: y + 1)(x @ w)[:, 3:], 12),
        (lambda x, w: (x @ w).reshape(5, 1, 8)[..., :2], 24),
        (lambda x, w: jnp.concatenate([x @ w, x], -1)[:, 6:], 24),
        (lambda x, w: (x @ w)[:, :4].sum(0), 16),
        (lambda x, w: x.sum(), 32),
        (lambda x, w: jax.nn.softmax(x @ w)[:, :4], 0),
        (lambda x, w: jnp.sort(x @ w)[:, :4], 0),
        (lambda x, w: (x @ w).reshape(5, 4, 2)[:, :2], 0),
        (lambda x, w: jnp.cumsum(x @ w, axis=1)[:, :4], 0),
        (lambda x, w: jax.lax.scan(lambda c, _: (c @ w[:, :4], None), x, None, 2)[0], 0),
        (lambda x, w: (x @ w)[:, :4] + (x @ w)[:, 4:], 0),
    ],
)
def test_what_is_sliced_away_is_unread(function, expected):
    _, found = unread(function, (5, 4), (4, 8))
    assert found == expected


@settings(deadline=None)  # the first call of an operation compiles it
@given(st.data())
def test_unread_elements_change_no_output(data):
    """NaN in every element that is said to be unread reaches no output."""
    start, stop = sorted((data.draw(st.integers(0, 7)), data.draw(st.integers(1, 8))))
    turned = data.draw(st.booleans())

    def run(x, w, b):
        y = jnp.tanh(x @ w + b)
        y = y.T[start : stop + 1].T if turned else y[:, start : stop + 1]
        return y.reshape(1, *y.shape) * 2

    rng = np.random.default_rng(7)
    given = [rng.normal(size=shape).astype("float32") for shape in ((5, 4), (4, 8), (8,))]
    poisoned = []
    for array, marks in zip(given, needed_inputs(jax.make_jaxpr(run)(*given)), strict=True):
        kept = np.zeros(array.shape, bool)
        if marks is not None:
            kept[np.ix_(*marks)] = True
        poisoned.append(np.where(kept, array, np.nan))
    assert np.isnan(poisoned[1]).any() == (start > 0 or stop < 7)
    np.testing.assert_array_equal(run(*given), run(*poisoned))
