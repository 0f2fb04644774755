"""`nn.Bidirectional` of two `nn.SimpleCell` (flax) against `nnx.Bidirectional`."""

import flax.linen as nn
from flax import nnx
from published_pair import Pair


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        one, other = nn.RNN(nn.SimpleCell(5, name="forth")), nn.RNN(nn.SimpleCell(5, name="back"))
        return nn.Dense(3, name="head")(nn.Bidirectional(one, other)(x))


class Port(nnx.Module):
    def __init__(self, rngs):
        def rnn():
            return nnx.RNN(nnx.SimpleCell(4, 5, rngs=rngs), rngs=rngs)

        self.both = nnx.Bidirectional(rnn(), rnn(), rngs=rngs)
        self.out = nnx.Linear(10, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.both(x))


def by_hand(left):
    found = {"out.kernel": left["head/kernel"], "out.bias": left["head/bias"]}
    for old, new in (("forth", "forward_rnn"), ("back", "backward_rnn")):
        for gate, layer in (("i", "dense_i"), ("h", "dense_h")):
            found[f"both.{new}.cell.{layer}.kernel"] = left[f"{old}/{gate}/kernel"]
        found[f"both.{new}.cell.dense_i.bias"] = left[f"{old}/i/bias"]
    return found


PAIR = Pair(Published, Port, {"x": "float32[3,6,4]"}, "same", by_hand)
