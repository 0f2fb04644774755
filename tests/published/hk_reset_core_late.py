"""`hk.ResetCore` around a vanilla RNN (dm-haiku) against NNX that clears its state one step too late."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

SIZE = 4


def published():
    def forward(x, first):
        core = hk.ResetCore(hk.VanillaRNN(SIZE, double_bias=False))
        return hk.dynamic_unroll(core, (x, first), core.initial_state(x.shape[1]))[0]

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.SimpleCell(3, SIZE, activation_fn=nnx.relu, rngs=rngs)

    def __call__(self, x, first):
        def step(state, inputs):
            x, first = inputs
            state, output = self.cell(state, x)
            return jnp.where(first[:, None], 0.0, state), output

        return jax.lax.scan(step, jnp.zeros((x.shape[1], SIZE)), (x, first))[1]


def by_hand(left):
    return {
        "cell.dense_i.kernel": left["vanilla_rnn/linear/w"],
        "cell.dense_i.bias": left["vanilla_rnn/linear/b"],
        "cell.dense_h.kernel": left["vanilla_rnn/linear_1/w"],
    }


PAIR = Pair(
    published,
    Port,
    {"x": "float32[6,2,3]", "first": "bool[6,2]"},
    "different",
    by_hand,
    bug="the state is cleared after the step that begins an episode, not before it",
)
