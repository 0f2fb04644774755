"""`hk.nets.MLP` (dm-haiku) against Linen layers of a porter's own names."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair

SIZES = (16, 8, 4)


def published():
    return hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(SIZES)(x)))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x):
        for size in SIZES[:-1]:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(SIZES[-1], name="out")(x)


def by_hand(left):
    names = {"linear_0": "Dense_0", "linear_1": "Dense_1", "linear_2": "out"}
    return {
        f"{new}/{leaf}": left[f"mlp/~/{old}/{short}"]
        for old, new in names.items()
        for short, leaf in (("w", "kernel"), ("b", "bias"))
    }


PAIR = Pair(published, Port, {"x": "float32[5,12]"}, "same", by_hand)
