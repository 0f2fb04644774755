"""`hk.ResetCore` around an LSTM (dm-haiku) against a Linen cell that clears its state where an episode begins."""

import flax.linen as nn
import haiku as hk
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

SIZE = 4


def published():
    def forward(x, first):
        core = hk.ResetCore(hk.LSTM(SIZE))
        return hk.dynamic_unroll(core, (x, first), core.initial_state(x.shape[1]))[0]

    return hk.without_apply_rng(hk.transform(forward))


class Cell(nn.Module):
    @nn.compact
    def __call__(self, state, step):
        x, first = step
        cell, hidden = (jnp.where(first[:, None], 0.0, one) for one in state)
        gates = nn.Dense(4 * SIZE, name="x")(x) + nn.Dense(4 * SIZE, use_bias=False, name="h")(hidden)
        new, write, keep, show = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(keep) * cell + nn.sigmoid(write) * nn.tanh(new)
        hidden = nn.sigmoid(show) * nn.tanh(cell)
        return (cell, hidden), hidden


class Port(nn.Module):
    @nn.compact
    def __call__(self, x, first):
        scan = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False})
        start = jnp.zeros((x.shape[1], SIZE))
        return scan(name="cell")((start, start), (x, first))[1]


def by_hand(left):
    kernel, bias = (np.split(left[f"lstm/linear/{leaf}"], 4, axis=-1) for leaf in ("w", "b"))
    order = (1, 0, 2, 3)  # input, cell, forget, output to cell, input, forget, output
    kernel = np.concatenate([kernel[gate] for gate in order], axis=-1)
    bias = np.concatenate([bias[gate] + (gate == 2) for gate in order])
    return {"cell/x/kernel": kernel[:3], "cell/x/bias": bias, "cell/h/kernel": kernel[3:]}


PAIR = Pair(published, Port, {"x": "float32[6,2,3]", "first": "bool[6,2]"}, "same", by_hand)
