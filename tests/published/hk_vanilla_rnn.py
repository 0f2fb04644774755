"""`hk.VanillaRNN` with its two biases (dm-haiku) against two NNX layers under `nnx.scan`."""

import haiku as hk
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair, move, swap_ends

SIZE = 5


def published():
    def forward(x):
        core = hk.VanillaRNN(SIZE)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.from_input, self.from_state = nnx.Linear(4, SIZE, rngs=rngs), nnx.Linear(SIZE, SIZE, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(None, nnx.Carry, 1), out_axes=(nnx.Carry, 1))
        def run(module, state, x):
            state = nnx.relu(module.from_state(state) + module.from_input(x))
            return state, state

        last, outputs = run(self, jnp.zeros((x.shape[0], SIZE)), x)
        return outputs, last


def by_hand(left):
    leaves = swap_ends(left, {"w": "kernel", "b": "bias"})
    moved = move(leaves, {"vanilla_rnn/linear": "from_input", "vanilla_rnn/linear_1": "from_state"})
    return {path.replace("/", "."): leaf for path, leaf in moved.items()}


def or_swapped(left):
    """The biases are added to each other, so that each may be either."""
    found = by_hand(left)
    return found | {"from_input.bias": found["from_state.bias"], "from_state.bias": found["from_input.bias"]}


PAIR = Pair(published, Port, {"x": "float32[3,6,4]"}, "same", (by_hand, or_swapped))
