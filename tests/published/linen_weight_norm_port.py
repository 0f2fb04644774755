"""`nn.WeightNorm` (flax) against an NNX layer that keeps direction and length apart, as parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.WeightNorm(nn.Conv(6, (3, 3), name="first"), name="norm")(x))
        return nn.Dense(2, name="last")(x.mean((1, 2)))


class WeightNormConv(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.direction = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 3, inputs, outputs)))
        self.length, self.bias = nnx.Param(jnp.ones(outputs)), nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        direction = self.direction[...]
        norm = jax.lax.rsqrt((direction**2).sum((0, 1, 2), keepdims=True) + 1e-12)
        kernel = self.length * (direction * norm)
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout) + self.bias


class Port(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.fc = WeightNormConv(3, 6, rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.fc(nnx.relu(self.conv(x)).mean((1, 2)))


def by_hand(left):
    return {
        "conv.direction": left["first/kernel"],
        "conv.length": left["norm/first/kernel/scale"],
        "conv.bias": left["first/bias"],
        "fc.kernel": left["last/kernel"],
        "fc.bias": left["last/bias"],
    }


PAIR = Pair(Published, Port, {"x": "float32[2,6,6,3]"}, "same", by_hand)
