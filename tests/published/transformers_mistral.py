"""Mistral of transformers, grouped heads and a sliding window, against an NNX port that never repeats a head."""

import jax
import jax.numpy as jnp
import numpy as np
from published_names import fuse, rename
from published_pair import Pair

WIDTH, HEADS, GROUPS, SIZE, ROWS, LENGTH, WINDOW = 32, 4, 2, 8, 64, 10, 4

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}"}


def published():
    """The model without a head."""
    from flax import linen as nn
    from transformers.models.mistral import MistralConfig
    from transformers.models.mistral.modeling_flax_mistral import FlaxMistralModule

    config = MistralConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        max_position_embeddings=32,
        sliding_window=WINDOW,
    )

    class Mistral(nn.Module):
        @nn.compact
        def __call__(self, ids):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return FlaxMistralModule(config, name="model")(ids, jnp.ones_like(ids), positions, return_dict=False)[0]

    return Mistral()


def make_port(rngs, seen):
    """A port with grouped heads that are never repeated.

    Args:
        rngs: of NNX.
        seen: how many tokens a token sees, with itself.
    """
    from flax import nnx

    def turn(x):
        angles = jnp.arange(x.shape[1])[:, None] / 10000.0 ** (jnp.arange(0, SIZE, 2) / SIZE)
        sin, cos = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
        one, two = jnp.split(x, 2, -1)
        return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1)

    class Block(nnx.Module):
        def __init__(self):
            self.norm1 = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)
            self.q = nnx.Linear(WIDTH, HEADS * SIZE, use_bias=False, rngs=rngs)
            self.kv = nnx.Linear(WIDTH, 2 * GROUPS * SIZE, use_bias=False, rngs=rngs)
            self.o = nnx.Linear(HEADS * SIZE, WIDTH, use_bias=False, rngs=rngs)
            self.norm2 = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)
            self.gate_up = nnx.Linear(WIDTH, 96, use_bias=False, rngs=rngs)
            self.down = nnx.Linear(48, WIDTH, use_bias=False, rngs=rngs)

        def __call__(self, x, allowed):
            batch, length, _ = x.shape
            normed = self.norm1(x)
            q = turn(self.q(normed).reshape(batch, length, HEADS, SIZE))
            k, v = jnp.split(self.kv(normed).reshape(batch, length, 2 * GROUPS, SIZE), 2, axis=2)
            q = q.reshape(batch, length, GROUPS, HEADS // GROUPS, SIZE)
            logits = jnp.einsum("bqgrs,bkgs->bgrqk", q, turn(k)) * SIZE**-0.5
            weights = jax.nn.softmax(jnp.where(allowed, logits, jnp.finfo(logits.dtype).min))
            x = x + self.o(jnp.einsum("bgrqk,bkgs->bqgrs", weights, v).reshape(x.shape))
            gate, up = jnp.split(self.gate_up(self.norm2(x)), 2, -1)
            return x + self.down(nnx.silu(gate) * up)

    class Mistral(nnx.Module):
        def __init__(self):
            self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(2)])
            self.norm = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)

        def __call__(self, ids):
            places = np.arange(LENGTH)
            back = places[:, None] - places[None, :]
            x = self.words(ids)
            for block in self.blocks:
                x = block(x, (back >= 0) & (back < seen))
            return self.norm(x)

    return Mistral()


def port(rngs):
    # transformers 4.57 masks with `triu(mask, k=-window)`: a token sees itself and `window` tokens before it.
    return make_port(rngs, WINDOW + 1)


def by_hand(left):
    layer = "model/layers/{}/"
    names = {
        "model/embed_tokens": "words",
        layer + "input_layernorm/weight": "blocks.{}.norm1.scale",
        layer + "self_attn/q_proj": "blocks.{}.q",
        layer + "self_attn/o_proj": "blocks.{}.o",
        layer + "post_attention_layernorm/weight": "blocks.{}.norm2.scale",
        layer + "mlp/down_proj": "blocks.{}.down",
        "model/norm/weight": "norm.scale",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        layer = f"model/layers/{number}"
        found[f"blocks.{number}.kv.kernel"] = fuse(left, f"{layer}/self_attn", ("k_proj", "v_proj"), "kernel")
        found[f"blocks.{number}.gate_up.kernel"] = fuse(left, f"{layer}/mlp", ("gate_proj", "up_proj"), "kernel")
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
