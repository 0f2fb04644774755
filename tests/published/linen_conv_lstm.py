"""`nn.RNN(nn.ConvLSTMCell)` (flax) against NNX with one convolution over input and state."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_pair import Pair

CHANNELS = 3


def published():
    return nn.RNN(nn.ConvLSTMCell(CHANNELS, (3, 3), use_bias=False, name="cell"))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.gates = nnx.Conv(2 + CHANNELS, 4 * CHANNELS, (3, 3), use_bias=False, rngs=rngs)

    def __call__(self, x):
        def step(state, x):
            cell, hidden = state
            write, new, keep, show = jnp.split(self.gates(jnp.concatenate([x, hidden], axis=-1)), 4, axis=-1)
            cell = jax.nn.sigmoid(keep + 1) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
            hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
            return (cell, hidden), hidden

        start = jnp.zeros((x.shape[0], *x.shape[2:4], CHANNELS))
        return jax.lax.scan(step, (start, start), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def by_hand(left):
    return {"gates.kernel": np.concatenate([left["cell/ih/kernel"], left["cell/hh/kernel"]], axis=2)}


PAIR = Pair(published, Port, {"x": "float32[2,4,5,5,2]"}, "same", by_hand)
