"""`nn.SpectralNorm` (flax) against `nnx.SpectralNorm`, which overwrites the kernel at every call."""

import flax.linen as nn
from flax import nnx
from published_pair import Pair


class Published(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.SpectralNorm(nn.Dense(6, name="first"), name="norm")(x, update_stats=train))
        return nn.Dense(2, name="last")(x)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.SpectralNorm(nnx.Linear(4, 6, rngs=rngs), rngs=rngs)
        self.last = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


def by_hand(left):
    return {
        "first.layer_instance.kernel": left["first/kernel"],
        "first.layer_instance.bias": left["first/bias"],
        "first.batch_stats.('kernel', 'u')": left["norm/first/kernel/u"],
        "first.batch_stats.('kernel', 'sigma')": left["norm/first/kernel/sigma"],
        "last.kernel": left["last/kernel"],
        "last.bias": left["last/bias"],
    }


PAIR = Pair(
    Published,
    Port,
    {"x": "float32[5,4]"},
    "different",
    by_hand,
    bug="nnx.SpectralNorm writes the normalised kernel back at every call",
    outputs_differ=False,
)
