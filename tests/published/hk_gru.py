"""`hk.GRU` (dm-haiku), unrolled from the end, against a Linen cell with a kernel for each gate."""

import flax.linen as nn
import haiku as hk
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

SIZE = 5


def published():
    def forward(x):
        core = hk.GRU(SIZE)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]), reverse=True)

    return hk.without_apply_rng(hk.transform(forward))


class Cell(nn.Module):
    """The GRU of Cho et al., 2014: the reset gate is applied before the product."""

    @nn.compact
    def __call__(self, state, x):
        def gate(name, recurrent):
            own = nn.Dense(SIZE, name=f"{name}_x")(x)
            return own + nn.Dense(SIZE, use_bias=False, name=f"{name}_h")(recurrent)

        update, reset = nn.sigmoid(gate("update", state)), nn.sigmoid(gate("reset", state))
        state = (1 - update) * state + update * nn.tanh(gate("new", reset * state))
        return state, state


class Port(nn.Module):
    @nn.compact
    def __call__(self, x):
        scan = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False}, reverse=True)
        last, outputs = scan(name="cell")(jnp.zeros((x.shape[1], SIZE)), x)
        return outputs, last


def by_hand(left):
    found = {}
    parts = (np.split(left[f"gru/{leaf}"], 3, axis=-1) for leaf in ("w_i", "w_h", "b"))
    for name, own, recurrent, bias in zip(("update", "reset", "new"), *parts, strict=True):
        found[f"cell/{name}_x/kernel"], found[f"cell/{name}_x/bias"] = own, bias
        found[f"cell/{name}_h/kernel"] = recurrent
    return found


PAIR = Pair(published, Port, {"x": "float32[6,3,4]"}, "same", by_hand)
