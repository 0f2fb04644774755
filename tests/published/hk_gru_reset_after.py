"""`hk.GRU` (dm-haiku) against a cell after cuDNN, which applies the reset gate after the product."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

SIZE = 5


def published():
    def forward(x):
        core = hk.GRU(SIZE)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.input = nnx.Linear(4, 3 * SIZE, rngs=rngs)
        self.hidden = nnx.Linear(SIZE, 3 * SIZE, use_bias=False, rngs=rngs)

    def __call__(self, x):
        def step(state, x):
            update, reset, new = jnp.split(self.input(x), 3, axis=-1)
            update_h, reset_h, new_h = jnp.split(self.hidden(state), 3, axis=-1)
            update, reset = jax.nn.sigmoid(update + update_h), jax.nn.sigmoid(reset + reset_h)
            state = (1 - update) * state + update * jnp.tanh(new + reset * new_h)
            return state, state

        return jax.lax.scan(step, jnp.zeros((x.shape[1], SIZE)), x)[1]


def by_hand(left):
    return {"input.kernel": left["gru/w_i"], "input.bias": left["gru/b"], "hidden.kernel": left["gru/w_h"]}


PAIR = Pair(
    published,
    Port,
    {"x": "float32[6,3,4]"},
    "different",
    by_hand,
    bug="the reset gate is applied after the product with the recurrent kernel",
)
