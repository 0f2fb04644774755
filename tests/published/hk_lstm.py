"""`hk.LSTM` under `hk.dynamic_unroll` (dm-haiku) against `nnx.RNN(nnx.OptimizedLSTMCell)`: other gates, no `+ 1`."""

import haiku as hk
import numpy as np
from flax import nnx
from published_pair import Pair

SIZE = 5


def published():
    def forward(x):
        core = hk.LSTM(SIZE)
        outputs, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
        return hk.Linear(2)(outputs)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(4, SIZE, rngs=rngs), rngs=rngs)
        self.read_out = nnx.Linear(SIZE, 2, rngs=rngs)

    def __call__(self, x):
        return self.read_out(self.rnn(x))


def by_hand(left):
    kernel, bias = (np.split(left[f"lstm/linear/{leaf}"], 4, axis=-1) for leaf in ("w", "b"))
    order = (0, 2, 1, 3)  # input, cell, forget, output to input, forget, cell, output
    kernel = np.concatenate([kernel[gate] for gate in order], axis=-1)
    return {
        "rnn.cell.dense_i.kernel": kernel[:4],
        "rnn.cell.dense_h.kernel": kernel[4:],
        "rnn.cell.dense_h.bias": np.concatenate([bias[gate] + (gate == 2) for gate in order]),
        "read_out.kernel": left["linear/w"],
        "read_out.bias": left["linear/b"],
    }


PAIR = Pair(published, Port, {"x": "float32[3,6,4]"}, "same", by_hand)
