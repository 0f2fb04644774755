"""`hk.Conv1DLSTM` (dm-haiku) against `nn.RNN(nn.ConvLSTMCell)`."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair


def published():
    def forward(x):
        core = hk.Conv1DLSTM(input_shape=(7,), output_channels=3, kernel_shape=3, name="core")
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)[0]

    return hk.without_apply_rng(hk.transform(forward))


def port():
    return nn.RNN(nn.ConvLSTMCell(3, (3,), name="cell"))


def by_hand(left):
    names = (("input_to_hidden", "ih"), ("hidden_to_hidden", "hh"))
    return {
        f"cell/{new}/{leaf}": left[f"core/{old}/{was}"]
        for old, new in names
        for was, leaf in (("w", "kernel"), ("b", "bias"))
    }


def or_swapped(left):
    """The biases are added to each other, so that each may be either."""
    found = by_hand(left)
    return found | {"cell/ih/bias": found["cell/hh/bias"], "cell/hh/bias": found["cell/ih/bias"]}


PAIR = Pair(published, port, {"x": "float32[2,4,7,2]"}, "same", (by_hand, or_swapped))
