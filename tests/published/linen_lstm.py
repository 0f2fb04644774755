"""`nn.RNN(nn.OptimizedLSTMCell)` (flax) against `nnx.RNN(nnx.OptimizedLSTMCell)`, which packs the gates."""

import flax.linen as nn
import numpy as np
from flax import nnx
from published_pair import Pair

GATES = ("i", "f", "g", "o")


def published():
    return nn.RNN(nn.OptimizedLSTMCell(5), return_carry=True)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(4, 5, rngs=rngs), return_carry=True, rngs=rngs)

    def __call__(self, x):
        return self.rnn(x)


def by_hand(left):
    def packed(leaf):
        return np.concatenate([left[f"cell/{leaf.format(gate)}"] for gate in GATES], axis=-1)

    return {
        "rnn.cell.dense_i.kernel": packed("i{}/kernel"),
        "rnn.cell.dense_h.kernel": packed("h{}/kernel"),
        "rnn.cell.dense_h.bias": packed("h{}/bias"),
    }


PAIR = Pair(published, Port, {"x": "float32[3,6,4]"}, "same", by_hand)
