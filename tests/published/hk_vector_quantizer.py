"""`hk.nets.VectorQuantizer` (dm-haiku) behind an encoder against NNX, where codes are rows of the table."""

import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair


def published():
    def forward(x, is_training):
        hidden = hk.Linear(6, name="encoder")(x)
        found = hk.nets.VectorQuantizer(embedding_dim=6, num_embeddings=10, commitment_cost=0.25)(hidden, is_training)
        return hk.Linear(5, name="decoder")(found["quantize"]), found["loss"], found["perplexity"]

    return hk.without_apply_rng(hk.transform(forward))


class Codebook(nnx.Module):
    def __init__(self, codes, size, rngs):
        self.table = nnx.Param(jax.random.uniform(rngs.params(), (codes, size)))

    def __call__(self, x):
        flat = x.reshape(-1, x.shape[-1])
        table = self.table[...]
        squares = (flat**2).sum(-1, keepdims=True) - 2 * flat @ table.T + (table**2).sum(-1)
        index = jnp.argmin(squares, axis=-1)
        chosen = table[index].reshape(x.shape)
        stop = jax.lax.stop_gradient
        loss = jnp.mean((chosen - stop(x)) ** 2) + 0.25 * jnp.mean((stop(chosen) - x) ** 2)
        share = jax.nn.one_hot(index, table.shape[0]).mean(0)
        return x + stop(chosen - x), loss, jnp.exp(-jnp.sum(share * jnp.log(share + 1e-10)))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.enc, self.dec = nnx.Linear(8, 6, rngs=rngs), nnx.Linear(6, 5, rngs=rngs)
        self.codebook = Codebook(10, 6, rngs)

    def __call__(self, x):
        quantized, loss, perplexity = self.codebook(self.enc(x))
        return self.dec(quantized), loss, perplexity


def by_hand(left):
    return {
        "enc.kernel": left["encoder/w"],
        "enc.bias": left["encoder/b"],
        "codebook.table": left["vector_quantizer/embeddings"].T,
        "dec.kernel": left["decoder/w"],
        "dec.bias": left["decoder/b"],
    }


PAIR = Pair(published, Port, {"x": "float32[4,3,8]"}, "same", by_hand)
