"""BLOOM of transformers, alibi and a kernel of query, key and value head by head, against NNX with three kernels."""

import jax
import jax.numpy as jnp
import numpy as np
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 64, 8

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}", "mask": np.array([[1] * LENGTH, [1] * 6 + [0] * 2], "int32")}


def published():
    """The model without a head and without dropout."""
    from flax import linen as nn
    from transformers.models.bloom import BloomConfig
    from transformers.models.bloom.modeling_flax_bloom import FlaxBloomModule

    config = BloomConfig(vocab_size=ROWS, hidden_size=WIDTH, n_layer=2, n_head=HEADS)

    class Bloom(nn.Module):
        @nn.compact
        def __call__(self, ids, mask):
            return FlaxBloomModule(config, name="bloom")(ids, mask, return_dict=False)[0]

    return Bloom()


def port(rngs):
    """A port with three kernels, whose bias falls with the distance of the tokens."""
    from flax import nnx

    def heads(x):
        return x.reshape(*x.shape[:2], HEADS, WIDTH // HEADS)

    class Block(nnx.Module):
        def __init__(self):
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.q, self.k, self.v, self.o = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
            self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x, bias, allowed):
            normed = self.norm1(x)
            q, k, v = heads(self.q(normed)), heads(self.k(normed)), heads(self.v(normed))
            logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(WIDTH // HEADS) + bias
            weights = jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf))
            x = x + self.o(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    class Bloom(nnx.Module):
        def __init__(self):
            self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.norm0 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(2)])
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

        def __call__(self, ids, mask):
            slopes = np.array([2.0 ** (-8 * (head + 1) / HEADS) for head in range(HEADS)], "float32")
            places = jnp.cumsum(mask, -1) - 1
            bias = slopes[:, None, None] * jnp.where(mask, places, 0)[:, None, None, :]
            allowed = np.tril(np.ones((LENGTH, LENGTH), bool)) & (mask[:, None, None, :] > 0)
            x = self.norm0(self.words(ids))
            for block in self.blocks:
                x = block(x, bias, allowed)
            return self.norm(x)

    return Bloom()


def by_hand(left):
    layer = "bloom/h/{}/"
    names = {
        "bloom/word_embeddings": "words",
        "bloom/word_embeddings_layernorm": "norm0",
        layer + "input_layernorm": "blocks.{}.norm1",
        layer + "self_attention/dense": "blocks.{}.o",
        layer + "post_attention_layernorm": "blocks.{}.norm2",
        layer + "mlp/dense_h_to_4h": "blocks.{}.up",
        layer + "mlp/dense_4h_to_h": "blocks.{}.down",
        "bloom/ln_f": "norm",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        for leaf in ("kernel", "bias"):
            fused = left[f"bloom/h/{number}/self_attention/query_key_value/{leaf}"]
            fused = fused.reshape(*fused.shape[:-1], HEADS, 3, WIDTH // HEADS)
            for place, name in enumerate("qkv"):
                found[f"blocks.{number}.{name}.{leaf}"] = fused[..., place, :].reshape(*fused.shape[:-3], WIDTH)
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
