"""`hk.SpectralNorm` (dm-haiku) on the kernels of a critic against an NNX layer with its own vector."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair


class Normed(hk.Module):
    def __init__(self, size, name):
        super().__init__(name)
        self.size = size

    def __call__(self, x, is_training):
        w = hk.get_parameter("w", (x.shape[-1], self.size), init=hk.initializers.TruncatedNormal())
        return x @ hk.SpectralNorm()(w, update_stats=is_training) + hk.get_parameter("b", (self.size,), init=jnp.zeros)


def published():
    def forward(x, is_training):
        return Normed(1, "second")(jax.nn.relu(Normed(6, "first")(x, is_training)), is_training)

    return hk.without_apply_rng(hk.transform_with_state(forward))


class SpectralLinear(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.vector = nnx.BatchStat(jax.random.normal(rngs.params(), (outputs,)))
        self.sigma = nnx.BatchStat(jnp.ones(()))

    def __call__(self, x, train):
        def unit(vector):
            return vector * jax.lax.rsqrt((vector**2).sum() + 1e-4)

        kernel = self.kernel[...]
        left = unit(kernel @ self.vector[...])
        right = unit(left @ kernel)
        left, right = jax.lax.stop_gradient((left, right))
        sigma = left @ kernel @ right
        if train:
            self.vector[...], self.sigma[...] = right, sigma
        return x @ (kernel / sigma) + self.bias


class Port(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.score = SpectralLinear(5, 6, rngs), SpectralLinear(6, 1, rngs)

    def __call__(self, x, train=False):
        return self.score(nnx.relu(self.hidden(x, train)), train)


def by_hand(left):
    found = {}
    for old, new in (("first", "hidden"), ("second", "score")):
        found[f"{new}.kernel"], found[f"{new}.bias"] = left[f"{old}/w"], left[f"{old}/b"]
        found[f"{new}.vector"] = left[f"{old}/spectral_norm/u0"][0]
        found[f"{new}.sigma"] = left[f"{old}/spectral_norm/sigma"]
    return found


PAIR = Pair(published, Port, {"x": "float32[7,5]"}, "same", by_hand)
