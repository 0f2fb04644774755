"""`hk.MultiHeadAttention` with a causal mask (dm-haiku) against NNX with one kernel for query, key and value."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_pair import Pair

HEADS, SIZE, WIDTH = 3, 4, 12


def published():
    def forward(x):
        attend = hk.MultiHeadAttention(HEADS, SIZE, w_init=hk.initializers.VarianceScaling(), model_size=WIDTH)
        mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1]), bool))
        normed = hk.LayerNorm(-1, True, True)(x)
        return x + attend(normed, normed, normed, mask)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.ln = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.proj = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        batch, length, _ = x.shape
        heads = self.qkv(self.ln(x)).reshape(batch, length, 3, HEADS, SIZE)
        query, key, value = jnp.moveaxis(heads, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * SIZE**-0.5
        causal = jnp.arange(length)[:, None] >= jnp.arange(length)
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
        return x + self.proj(jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, WIDTH))


def by_hand(left):
    at = "multi_head_attention"
    parts = ("query", "key", "value")
    return {
        "ln.scale": left["layer_norm/scale"],
        "ln.bias": left["layer_norm/offset"],
        "qkv.kernel": np.concatenate([left[f"{at}/{part}/w"] for part in parts], axis=1),
        "qkv.bias": np.concatenate([left[f"{at}/{part}/b"] for part in parts]),
        "proj.kernel": left[f"{at}/linear/w"],
        "proj.bias": left[f"{at}/linear/b"],
    }


PAIR = Pair(published, Port, {"x": "float32[2,6,12]"}, "same", by_hand)
