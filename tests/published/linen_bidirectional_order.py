"""`nn.Bidirectional` of two `nn.GRUCell` (flax) against NNX that leaves the backward outputs in backward order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

SIZE = 5


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Bidirectional(nn.RNN(nn.GRUCell(SIZE, name="forth")), nn.RNN(nn.GRUCell(SIZE, name="back")))(x)


class Gru(nnx.Module):
    def __init__(self, rngs):
        for gate in ("reset", "update", "new"):
            setattr(self, f"{gate}_x", nnx.Linear(4, SIZE, rngs=rngs))
            setattr(self, f"{gate}_h", nnx.Linear(SIZE, SIZE, use_bias=gate == "new", rngs=rngs))

    def __call__(self, x):
        def step(state, x):
            reset = jax.nn.sigmoid(self.reset_x(x) + self.reset_h(state))
            update = jax.nn.sigmoid(self.update_x(x) + self.update_h(state))
            new = jnp.tanh(self.new_x(x) + reset * self.new_h(state))
            state = (1 - update) * new + update * state
            return state, state

        return jax.lax.scan(step, jnp.zeros((x.shape[0], SIZE)), x.swapaxes(0, 1))[1].swapaxes(0, 1)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.one, self.other = Gru(rngs), Gru(rngs)

    def __call__(self, x):
        return jnp.concatenate([self.one(x), self.other(x[:, ::-1])], axis=-1)


def by_hand(left):
    found = {}
    for old, new in (("forth", "one"), ("back", "other")):
        for short, gate in (("r", "reset"), ("z", "update"), ("n", "new")):
            found[f"{new}.{gate}_x.kernel"] = left[f"{old}/i{short}/kernel"]
            found[f"{new}.{gate}_x.bias"] = left[f"{old}/i{short}/bias"]
            found[f"{new}.{gate}_h.kernel"] = left[f"{old}/h{short}/kernel"]
        found[f"{new}.new_h.bias"] = left[f"{old}/hn/bias"]
    return found


PAIR = Pair(
    Published,
    Port,
    {"x": "float32[3,6,4]"},
    "different",
    by_hand,
    bug="the outputs of the backward pass are not turned around again",
)
