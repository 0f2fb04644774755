"""`nn.WeightNorm` (flax) against `nnx.WeightNorm`, whose scales are constants and which overwrites the kernel."""

import flax.linen as nn
from flax import nnx
from published_pair import Pair


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.WeightNorm(nn.Dense(6, name="first"), name="norm")(x))
        return nn.Dense(2, name="last")(x)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.WeightNorm(nnx.Linear(4, 6, rngs=rngs), rngs=rngs)
        self.last = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


def by_hand(left):
    return {
        "first.layer_instance.kernel": left["first/kernel"],
        "first.layer_instance.bias": left["first/bias"],
        "last.kernel": left["last/kernel"],
        "last.bias": left["last/bias"],
    }


PAIR = Pair(
    Published,
    Port,
    {"x": "float32[5,4]"},
    "different",
    by_hand,
    bug="the scales of nnx.WeightNorm are ones that nothing trains, and it writes the kernel back at every call",
)
