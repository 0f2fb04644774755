"""`nn.RNN(nn.MGUCell)` (flax), which NNX lacks, against a port with one kernel for both gates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_pair import Pair

SIZE = 5


def published():
    return nn.RNN(nn.MGUCell(SIZE), reverse=True, keep_order=True)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.wx, self.wh = nnx.Linear(4, 2 * SIZE, rngs=rngs), nnx.Linear(SIZE, 2 * SIZE, use_bias=False, rngs=rngs)
        self.new_bias = nnx.Param(jnp.zeros(SIZE))

    def __call__(self, x):
        def step(state, x):
            forget, new = jnp.split(self.wx(x), 2, axis=-1)
            forget_h, new_h = jnp.split(self.wh(state), 2, axis=-1)
            forget = jax.nn.sigmoid(forget + forget_h)
            new = jnp.tanh(new + forget * (new_h + self.new_bias))
            state = state + (1 - forget) * (new - state)
            return state, state

        _, outputs = jax.lax.scan(step, jnp.zeros((x.shape[0], SIZE)), x.swapaxes(0, 1), reverse=True)
        return outputs.swapaxes(0, 1)


def by_hand(left):
    def packed(leaf):
        return np.concatenate([left[f"cell/{leaf.format(gate)}"] for gate in "fn"], axis=-1)

    return {
        "wx.kernel": packed("i{}/kernel"),
        "wx.bias": packed("i{}/bias"),
        "wh.kernel": packed("h{}/kernel"),
        "new_bias": left["cell/hn/bias"],
    }


PAIR = Pair(published, Port, {"x": "float32[3,6,4]"}, "same", by_hand)
