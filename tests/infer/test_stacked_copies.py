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
