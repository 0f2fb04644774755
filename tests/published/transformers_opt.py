"""OPT of transformers, positions from row 2 of their table, against an NNX port of `nnx.MultiHeadAttention`."""

import jax.numpy as jnp
import numpy as np
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 64, 8

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}"}


def published():
    """The language model without dropout."""
    from flax import linen as nn
    from transformers.models.opt import OPTConfig
    from transformers.models.opt.modeling_flax_opt import FlaxOPTForCausalLMModule

    config = OPTConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        ffn_dim=64,
        max_position_embeddings=16,
        num_attention_heads=HEADS,
        word_embed_proj_dim=WIDTH,
        dropout=0.0,
    )

    class OPT(nn.Module):
        @nn.compact
        def __call__(self, ids):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            model = FlaxOPTForCausalLMModule(config, name="opt")
            return model(ids, jnp.ones_like(ids), positions, return_dict=False)[0]

    return OPT()


def make_port(rngs, offset):
    """A port with `nnx.MultiHeadAttention`.

    Args:
        rngs: of NNX.
        offset: the row of the first position.
    """
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self):
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.feed = nnx.Sequential(nnx.Linear(WIDTH, 64, rngs=rngs), nnx.relu, nnx.Linear(64, WIDTH, rngs=rngs))

        def __call__(self, x):
            x = x + self.attention(self.norm1(x), mask=np.tril(np.ones((LENGTH, LENGTH), bool)))
            return x + self.feed(self.norm2(x))

    class OPT(nnx.Module):
        def __init__(self):
            self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.places = nnx.Embed(18, WIDTH, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(2)])
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

        def __call__(self, ids):
            x = self.words(ids) + self.places(jnp.arange(LENGTH) + offset)
            for block in self.blocks:
                x = block(x)
            return self.words.attend(self.norm(x))

    return OPT()


def port(rngs):
    return make_port(rngs, 2)


def by_hand(left):
    layer = "opt/model/decoder/layers/{}/"
    names = {
        "opt/model/decoder/embed_tokens": "words",
        "opt/model/decoder/embed_positions": "places",
        layer + "self_attn_layer_norm": "blocks.{}.norm1",
        layer + "self_attn/out_proj/bias": "blocks.{}.attention.out.bias",
        layer + "final_layer_norm": "blocks.{}.norm2",
        layer + "fc1": "blocks.{}.feed.layers.0",
        layer + "fc2": "blocks.{}.feed.layers.2",
        "opt/model/decoder/final_layer_norm": "norm",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        old, new = f"opt/model/decoder/layers/{number}/self_attn", f"blocks.{number}.attention"
        for name, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            found[f"{new}.{part}.kernel"] = left[f"{old}/{name}/kernel"].reshape(WIDTH, HEADS, -1)
            found[f"{new}.{part}.bias"] = left[f"{old}/{name}/bias"].reshape(HEADS, -1)
        found[f"{new}.out.kernel"] = left[f"{old}/out_proj/kernel"].reshape(HEADS, -1, WIDTH)
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
