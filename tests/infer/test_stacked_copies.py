"""Copies of a layer, each with leaves of its own, against a stack of them under `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import found, inferred, pure, tabled_outputs

X = {"x": "float32[4,6]"}


def layer(x, w, b, o):
    return jnp.tanh(x @ w + b) @ o


def copies(joined, order=(0, 1, 2)):
    def run(p, x):
        return joined(jnp.stack([layer(x, p[f"w{at}"], p[f"b{at}"], p[f"o{at}"]) for at in order]))

    shapes = {"w": (6, 8), "b": (8,), "o": (8, 2)}
    return pure("haiku", run, **{f"{name}{at}": shape for at in range(3) for name, shape in shapes.items()})


def stack(joined):
    def run(p, x):
        return joined(jax.vmap(layer, in_axes=(None, 0, 0, 0))(x, p["w"], p["b"], p["o"]))

    return pure("nnx", run, w=(3, 6, 8), b=(3, 8), o=(3, 8, 2))


@pytest.mark.parametrize("joined", [lambda y: y, lambda y: y.mean(0)], ids=["apart", "mean"])
def test_copies_are_items_of_a_stack(joined):
    """An ensemble, its members apart or their mean, in which any order would do."""
    np.testing.assert_allclose(*tabled_outputs(copies(joined), stack(joined), X), atol=1e-5)


def test_copies_called_otherwise_are_told_by_what_they_return():
    """The first copy is called 2: the outputs are stacked in the order of the calls."""
    pairs = found(inferred(copies(lambda y: y, (2, 0, 1)), stack(lambda y: y), X))
    assert {left: bounds[0][0] for (left, _), (right, bounds) in pairs.items() if right == "w"} == {
        "w2": 0, "w0": 1, "w1": 2,
    }  # fmt: skip


def test_a_stack_may_have_the_size_of_single_leaves():
    """Two square kernels in a stack have as many elements as one that is twice as wide, of which there are as many."""
    square, wide = ("a", "b"), ("up", "down")

    def step(x, a, b, up, down):
        return jnp.tanh(jnp.tanh(x @ a) @ b) + jnp.tanh(x @ up) @ down

    def unrolled(p, x):
        for at in range(2):
            x = step(x, *(p[f"{name}{at}"] for name in (*square, *wide)))
        return x

    def scanned(p, x):
        return jax.lax.scan(lambda x, leaves: (step(x, *leaves), None), x, [p[name] for name in (*square, *wide)])[0]

    shapes = {"a": (6, 6), "b": (6, 6), "up": (6, 12), "down": (12, 6)}
    left = pure("haiku", unrolled, **{f"{name}{at}": shape for at in range(2) for name, shape in shapes.items()})
    right = pure("nnx", scanned, **{name: (2, *shape) for name, shape in shapes.items()})
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-5)


def test_usual_abbreviations_are_names():
    """With a bug, here a shifted input, gradients decide nothing, and `q` is the query."""

    def attend(p, x, names):
        q, k, v = (x @ p[name] for name in names)
        return jax.nn.softmax(q @ k.T) @ v

    left, right = ("query", "key", "value"), ("q_proj", "k_proj", "v_proj")
    ours = pure("haiku", lambda p, x: attend(p, x, left), **dict.fromkeys(left, (6, 6)))
    theirs = pure("nnx", lambda p, x: attend(p, jnp.roll(x, 1, -1), right), **dict.fromkeys(right, (6, 6)))
    pairs = {pair.left.path: pair.right.path for pair in inferred(ours, theirs, X).pairs}
    assert pairs == dict(zip(left, right, strict=True))
