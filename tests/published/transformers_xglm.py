"""XGLM of transformers, positions as sines, against an NNX port that does not scale its embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import fuse, rename
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 64, 8
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.xglm import XGLMConfig
    from transformers.models.xglm.modeling_flax_xglm import FlaxXGLMModule

    config = XGLMConfig(
        vocab_size=ROWS,
        max_position_embeddings=16,
        d_model=WIDTH,
        ffn_dim=48,
        num_layers=2,
        attention_heads=HEADS,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )

    class XGLM(nn.Module):
        @nn.compact
        def __call__(self, ids):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return FlaxXGLMModule(config, name="model")(ids, jnp.ones_like(ids), positions, return_dict=False)[0]

    return XGLM()


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.qkv, self.out = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)

    def __call__(self, x):
        q, k, v = (part.reshape(*x.shape[:2], HEADS, -1) for part in jnp.split(self.qkv(self.norm1(x)), 3, -1))
        x = x + self.out(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

    def __call__(self, ids):
        half = WIDTH // 2
        angles = np.arange(2, LENGTH + 2)[:, None] * np.exp(-np.log(10000) / (half - 1) * np.arange(half))
        x = self.words(ids) + np.concatenate([np.sin(angles), np.cos(angles)], 1).astype("float32")
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def by_hand(left):
    layer = "model/layers/{}/"
    names = {
        "model/embed_tokens": "words",
        layer + "self_attn_layer_norm": "blocks.{}.norm1",
        layer + "self_attn/out_proj": "blocks.{}.out",
        layer + "final_layer_norm": "blocks.{}.norm2",
        layer + "fc1": "blocks.{}.up",
        layer + "fc2": "blocks.{}.down",
        "model/layer_norm": "norm",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        for leaf in ("kernel", "bias"):
            parts = fuse(left, f"model/layers/{number}/self_attn", ("q_proj", "k_proj", "v_proj"), leaf)
            found[f"blocks.{number}.qkv.{leaf}"] = parts
    return found


BUG = "embeddings are not multiplied by the root of the width"
PAIR = Pair(published, Port, {"ids": f"int32[2,{LENGTH}]:{ROWS}"}, "different", by_hand, bug=BUG, needs=NEEDS)
