"""The encoder of LongT5 of transformers, attention in blocks, against an NNX port with a dense mask of a band."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, SIZE, ROWS, LENGTH, RADIUS, BUCKETS, DISTANCE = 32, 4, 8, 64, 10, 2, 8, 16
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.longt5 import LongT5Config, modeling_flax_longt5

    # jax 0.10 has no `jnp.clip(a_max=)` any more.
    modeling_flax_longt5.jnp = SimpleNamespace(**vars(jnp) | {"clip": lambda x, a_max: jnp.minimum(x, a_max)})
    config = LongT5Config(
        vocab_size=ROWS,
        d_model=WIDTH,
        d_kv=SIZE,
        d_ff=48,
        num_layers=2,
        num_heads=HEADS,
        local_radius=RADIUS,
        relative_attention_num_buckets=BUCKETS,
        relative_attention_max_distance=DISTANCE,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    config.causal = False

    class LongT5(nn.Module):
        @nn.compact
        def __call__(self, ids):
            words = nn.Embed(ROWS, WIDTH, name="words")
            encoder = modeling_flax_longt5.FlaxLongT5Stack(config, words, name="encoder")
            return encoder(ids, jnp.ones_like(ids), return_dict=False)[0]

    return LongT5()


def buckets():
    """The row of the table of positions for every two tokens."""
    offset = np.arange(LENGTH)[None, :] - np.arange(LENGTH)[:, None]
    half = BUCKETS // 2
    exact = half // 2
    far = np.log(np.maximum(np.abs(offset), 1) / exact) / math.log(DISTANCE / exact) * (half - exact)
    far = np.minimum(exact + far, half - 1).astype("int32")
    return half * (offset > 0) + np.where(np.abs(offset) < exact, np.abs(offset), far), np.abs(offset) <= RADIUS


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm1 = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)
        self.q, self.k, self.v = (nnx.Linear(WIDTH, HEADS * SIZE, use_bias=False, rngs=rngs) for _ in range(3))
        self.o = nnx.Linear(HEADS * SIZE, WIDTH, use_bias=False, rngs=rngs)
        self.norm2 = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)
        self.gate, self.up = (nnx.Linear(WIDTH, 48, use_bias=False, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(48, WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x, bias):
        normed = self.norm1(x)
        q, k, v = (layer(normed).reshape(*x.shape[:2], HEADS, SIZE) for layer in (self.q, self.k, self.v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias)
        x = x + self.o(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))
        normed = self.norm2(x)
        return x + self.down(nnx.gelu(self.gate(normed)) * self.up(normed))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
        self.bias = nnx.Embed(BUCKETS, HEADS, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)

    def __call__(self, ids):
        rows, near = buckets()
        bias = jnp.where(near, self.bias(rows).transpose(2, 0, 1), -jnp.inf)
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)


def by_hand(left):
    layer, attention = "encoder/block/{}/layer/", "encoder/block/{}/layer/0/LocalSelfAttention/"
    names = {
        "words": "words",
        attention.format(0) + "relative_attention_bias": "bias",
        layer + "0/layer_norm/weight": "blocks.{}.norm1.scale",
        layer + "1/layer_norm/weight": "blocks.{}.norm2.scale",
        layer + "1/DenseReluDense/wi_0": "blocks.{}.gate",
        layer + "1/DenseReluDense/wi_1": "blocks.{}.up",
        layer + "1/DenseReluDense/wo": "blocks.{}.down",
        "encoder/final_layer_norm/weight": "norm.scale",
    }
    names |= {attention + name: f"blocks.{{}}.{name}" for name in "qkvo"}
    return rename(left, names, layers=2)


PAIR = Pair(published, Port, {"ids": f"int32[2,{LENGTH}]:{ROWS}"}, "same", by_hand, needs=NEEDS)
