"""Models whose checkpoints are those of `test_recorded_failures.py`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx

from equiv.core.case import Case
from equiv.core.layers import batch_norm, linear, state

LAYERS = 11


class Deep(nn.Module):
    """More than ten layers by name, in Linen."""

    @nn.compact
    def __call__(self, x):
        for index in range(LAYERS):
            x = jnp.tanh(nn.Dense(4, name=f"layers_{index}")(x))
        return x


class DeepNNX(nnx.Module):
    """The same in a list."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(LAYERS)])

    def __call__(self, x):
        for one in self.layers:
            x = jnp.tanh(one(x))
        return x


def deep() -> Case:
    """Layers called `layers_0` in Linen, `layers.0` in NNX."""
    rows = tuple(linear(f"layer{index}", linen=f"layers_{index}", nnx=f"layers.{index}") for index in range(LAYERS))
    return Case("", {"linen": Deep, "nnx": DeepNNX}, {"x": "float32[3,4]"}, rows)


class Routed(nn.Module):
    """A table that is not trained, beside a layer."""

    @nn.compact
    def __call__(self, x):
        table = self.variable("routing", "table", lambda: jnp.arange(3, dtype=jnp.int32))
        return nn.Dense(4, name="mlp")(x)[:, table.value]


class RoutedNNX(nnx.Module):
    """The same, in a variable of no type of its own."""

    def __init__(self, rngs):
        self.table, self.mlp = nnx.Variable(jnp.arange(3, dtype=jnp.int32)), nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.mlp(x)[:, self.table[...]]


def routed() -> Case:
    """A layer and a table."""
    rows = (linear("mlp", linen="mlp", nnx="mlp"), state("table", linen="routing/table", nnx="table"))
    return Case("", {"linen": Routed, "nnx": RoutedNNX}, {"x": "float32[3,4]"}, rows)


def baseline():
    """A layer with batch norm, in Haiku."""
    import haiku as hk

    def forward(x, is_training):
        return hk.BatchNorm(True, True, 0.9, name="bn")(hk.Linear(4, name="out")(x), is_training)

    return hk.transform_with_state(forward)


class Baseline(nn.Module):
    """The same in Linen."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(4, name="out")(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="bn")(x)


def normalised() -> Case:
    """A layer with batch norm."""
    rows = (linear("out", haiku="out", linen="out"), batch_norm("bn", haiku="bn", linen="bn"))
    return Case("", {"haiku": baseline, "linen": Baseline}, {"x": "float32[5,3]"}, rows)


def numbered(layers: int = LAYERS) -> dict:
    """Layers under their numbers, as NNX has them, each of its own value."""
    return {index: {"kernel": np.full((4, 4), index + 1, "f4"), "bias": np.ones(4, "f4")} for index in range(layers)}
