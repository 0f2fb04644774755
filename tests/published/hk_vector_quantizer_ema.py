"""`hk.nets.VectorQuantizerEMA` (dm-haiku) against a Linen module with averages of its own."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from published_pair import Pair

DECAY = 0.9


def published():
    def forward(x, is_training):
        quantizer = hk.nets.VectorQuantizerEMA(6, 10, commitment_cost=0.25, decay=DECAY)
        found = quantizer(hk.Linear(6, name="encoder")(x), is_training)
        return found["quantize"], found["loss"]

    return hk.without_apply_rng(hk.transform_with_state(forward))


class Average(nn.Module):
    """A zero-debiased moving average."""

    @nn.compact
    def __call__(self, value):
        hidden = self.variable("stats", "hidden", jnp.zeros, value.shape)
        count = self.variable("stats", "count", lambda: jnp.zeros((), jnp.int32))
        average = self.variable("stats", "average", jnp.zeros, value.shape)
        new_hidden = hidden.value * DECAY + value * (1 - DECAY)
        new_average = new_hidden / (1 - DECAY ** (count.value + 1))
        if not self.is_initializing():
            hidden.value, average.value, count.value = new_hidden, new_average, count.value + 1
        return new_average


class Codebook(nn.Module):
    codes: int = 10

    @nn.compact
    def __call__(self, x, train):
        flat = x.reshape(-1, x.shape[-1])
        codes = self.variable(
            "stats",
            "codes",
            jax.random.normal,
            self.make_rng("params") if self.is_initializing() else None,
            (flat.shape[1], self.codes),
        )
        table = codes.value
        squares = (flat**2).sum(1, keepdims=True) - 2 * flat @ table + (table**2).sum(0, keepdims=True)
        index = jnp.argmin(squares, axis=1)
        chosen = table.T[index].reshape(x.shape)
        sizes, sums = Average(name="sizes"), Average(name="sums")
        if train or self.is_initializing():
            hot = jax.nn.one_hot(index, self.codes)
            size, total = sizes(hot.sum(0)), sums(flat.T @ hot)
            number = size.sum()
            size = (size + 1e-5) / (number + self.codes * 1e-5) * number
            if not self.is_initializing():
                codes.value = total / size
        loss = 0.25 * jnp.mean((jax.lax.stop_gradient(chosen) - x) ** 2)
        return x + jax.lax.stop_gradient(chosen - x), loss


class Port(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return Codebook(name="codebook")(nn.Dense(6, name="enc")(x), train)


def by_hand(left):
    found = {"enc/kernel": left["encoder/w"], "enc/bias": left["encoder/b"]}
    found["codebook/codes"] = left["vector_quantizer_ema/embeddings"]
    for old, new in (("ema_cluster_size", "sizes"), ("ema_dw", "sums")):
        for was, leaf in (("hidden", "hidden"), ("average", "average"), ("counter", "count")):
            found[f"codebook/{new}/{leaf}"] = left[f"vector_quantizer_ema/~/{old}/{was}"]
    return found


PAIR = Pair(published, Port, {"x": "float32[16,8]"}, "same", by_hand)
