"""`hk.Embed` and `hk.deep_rnn_with_skip_connections` of two LSTMs (dm-haiku) against NNX cells in one loop."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_pair import Pair

WORDS, WIDTH, SIZES = 20, 4, (5, 3)


def published():
    def forward(tokens):
        x = hk.Embed(WORDS, WIDTH)(tokens)
        core = hk.deep_rnn_with_skip_connections([hk.LSTM(size) for size in SIZES])
        outputs, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
        return hk.Linear(WORDS)(outputs)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.bottom = nnx.LSTMCell(WIDTH, SIZES[0], rngs=rngs)
        self.top = nnx.LSTMCell(WIDTH + SIZES[0], SIZES[1], rngs=rngs)
        self.logits = nnx.Linear(sum(SIZES), WORDS, rngs=rngs)

    def __call__(self, tokens):
        x = self.words(tokens)
        start = [(jnp.zeros((x.shape[0], size)),) * 2 for size in SIZES]

        def step(states, x):
            below, first = self.bottom(states[0], x)
            above, second = self.top(states[1], jnp.concatenate([x, first], axis=-1))
            return [below, above], jnp.concatenate([first, second], axis=-1)

        _, outputs = jax.lax.scan(step, start, x.swapaxes(0, 1))
        return self.logits(outputs.swapaxes(0, 1))


def by_hand(left):
    found = {
        "words.embedding": left["embed/embeddings"],
        "logits.kernel": left["linear/w"],
        "logits.bias": left["linear/b"],
    }
    for old, new, inputs in (("lstm", "bottom", WIDTH), ("lstm_1", "top", WIDTH + SIZES[0])):
        kernels, biases = (np.split(left[f"{old}/linear/{leaf}"], 4, axis=-1) for leaf in ("w", "b"))
        for gate, kernel, bias in zip("igfo", kernels, biases, strict=True):
            own = "if_" if gate == "f" else f"i{gate}"
            found[f"{new}.{own}.kernel"] = kernel[:inputs]
            found[f"{new}.h{gate}.kernel"], found[f"{new}.h{gate}.bias"] = kernel[inputs:], bias + (gate == "f")
    return found


PAIR = Pair(published, Port, {"tokens": f"int32[3,6]:{WORDS}"}, "same", by_hand)
