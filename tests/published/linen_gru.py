"""`nn.RNN(nn.GRUCell)` (flax) against `nnx.RNN(nnx.GRUCell)`, which lacks the bias of the recurrent product."""

import flax.linen as nn
import numpy as np
from flax import nnx
from published_pair import Pair


def published():
    return nn.RNN(nn.GRUCell(5))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(4, 5, rngs=rngs), rngs=rngs)

    def __call__(self, x):
        return self.rnn(x)


def by_hand(left):
    def packed(leaf):
        return np.concatenate([left[f"cell/{leaf.format(gate)}"] for gate in "rzn"], axis=-1)

    return {
        "rnn.cell.dense_i.kernel": packed("i{}/kernel"),
        "rnn.cell.dense_i.bias": packed("i{}/bias"),
        "rnn.cell.dense_h.kernel": packed("h{}/kernel"),
    }


PAIR = Pair(published, Port, {"x": "float32[3,6,4]"}, "different", by_hand, bug="hn/bias has no counterpart")
