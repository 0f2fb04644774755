"""`nn.ConvLocal` (flax), which NNX lacks, against a kernel for each position that is applied to patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair


def published():
    return nn.ConvLocal(4, (3, 3), strides=2, padding="VALID")


class Port(nnx.Module):
    def __init__(self, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, 18, 4)))
        self.bias = nnx.Param(jnp.zeros((3, 3, 4)))

    def __call__(self, x):
        layout = ("NHWC", "HWIO", "NHWC")
        patches = jax.lax.conv_general_dilated_patches(x, (3, 3), (2, 2), "VALID", dimension_numbers=layout)
        return jnp.einsum("bhwi,hwio->bhwo", patches, self.kernel[...]) + self.bias


def by_hand(left):
    return dict(left)


PAIR = Pair(published, Port, {"x": "float32[2,7,7,2]"}, "same", by_hand)
