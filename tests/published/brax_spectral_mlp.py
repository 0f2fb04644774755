"""brax's `SNMLP`, which divides its kernels by their largest singular value, against an NNX port with a buffer."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

SIZES = (4, 8, 6, 2)


def published():
    from brax.training.networks import SNMLP

    return SNMLP(SIZES[1:])


class Direction(nnx.Variable):
    pass


class Spectral(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.linear = nnx.Linear(inputs, outputs, rngs=rngs)
        self.direction = Direction(jax.random.normal(rngs.params(), (outputs,)))

    def __call__(self, x):
        def unit(vector):
            return vector / jnp.sqrt(vector @ vector + 1e-4)

        kernel = self.linear.kernel[...]
        left = unit(kernel @ self.direction[...])
        right = jax.lax.stop_gradient(unit(left @ kernel))
        self.direction[...] = right
        largest = jax.lax.stop_gradient(left) @ kernel @ right
        return x @ (kernel / largest) + self.linear.bias[...]


class Port(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Spectral(*sizes, rngs) for sizes in itertools.pairwise(SIZES)])

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


def by_hand(left):
    found = {}
    for number in range(3):
        found[f"layers.{number}.linear.kernel"] = left[f"hidden_{number}/kernel"]
        found[f"layers.{number}.linear.bias"] = left[f"hidden_{number}/bias"]
        found[f"layers.{number}.direction"] = left[f"hidden_{number}/u0"][0]
    return found


PAIR = Pair(published, Port, {"x": "float32[5,4]"}, "same", by_hand, needs=("brax==0.14.2",))
