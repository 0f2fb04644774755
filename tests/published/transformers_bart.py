"""BART of transformers, encoder and decoder, against an NNX port of `nnx.MultiHeadAttention`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, ROWS, SOURCE, TARGET = 32, 4, 64, 8, 6
NEEDS = ("transformers==4.57.6",)
BATCH = {
    "ids": f"int32[2,{SOURCE}]:{ROWS}",
    "mask": np.array([[1] * SOURCE, [1] * 5 + [0] * 3], "int32"),
    "target": f"int32[2,{TARGET}]:{ROWS}",
}


def published():
    from flax import linen as nn
    from transformers.models.bart import BartConfig
    from transformers.models.bart.modeling_flax_bart import FlaxBartModule

    config = BartConfig(
        vocab_size=ROWS,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=10,
        scale_embedding=True,
        dropout=0.0,
    )

    class Bart(nn.Module):
        @nn.compact
        def __call__(self, ids, mask, target):
            places = (jnp.broadcast_to(jnp.arange(one.shape[1]), one.shape) for one in (ids, target))
            return FlaxBartModule(config, name="bart")(
                ids, mask, target, jnp.ones_like(target), *places, return_dict=False
            )

    return Bart()


class Block(nnx.Module):
    def __init__(self, has_source, rngs):
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        if has_source:
            self.reading = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
            self.reading_norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

    def __call__(self, x, mask, source=None, source_mask=None):
        x = self.attention_norm(x + self.attention(x, mask=mask))
        if source is not None:
            x = self.reading_norm(x + self.reading(x, source, source, mask=source_mask))
        return self.norm(x + self.down(nnx.gelu(self.up(x), approximate=False)))


class Side(nnx.Module):
    def __init__(self, has_source, rngs):
        self.places = nnx.Embed(12, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.blocks = nnx.List([Block(has_source, rngs) for _ in range(2)])

    def __call__(self, x, *others):
        x = self.norm(x + self.places.embedding[2 : 2 + x.shape[1]])
        for block in self.blocks:
            x = block(x, *others)
        return x


class Port(nnx.Module):
    def __init__(self, rngs):
        self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
        self.encoder, self.decoder = Side(False, rngs), Side(True, rngs)

    def __call__(self, ids, mask, target):
        seen = mask[:, None, None, :] > 0
        source = self.encoder(self.words(ids) * WIDTH**0.5, seen)
        causal = jnp.tril(jnp.ones((TARGET, TARGET), bool))
        return self.decoder(self.words(target) * WIDTH**0.5, causal, source, seen), source


def by_hand(left):
    names = {"bart/shared": "words"}
    for side, reads in (("encoder", False), ("decoder", True)):
        layer = f"bart/{side}/layers/{{}}/"
        names |= {
            f"bart/{side}/embed_positions": f"{side}.places",
            f"bart/{side}/layernorm_embedding": f"{side}.norm",
            layer + "self_attn_layer_norm": f"{side}.blocks.{{}}.attention_norm",
            layer + "fc1": f"{side}.blocks.{{}}.up",
            layer + "fc2": f"{side}.blocks.{{}}.down",
            layer + "final_layer_norm": f"{side}.blocks.{{}}.norm",
        }
        if reads:
            names[layer + "encoder_attn_layer_norm"] = f"{side}.blocks.{{}}.reading_norm"
    found = rename(left, names, layers=2)
    attentions = (("encoder", "self_attn", "attention"), ("decoder", "self_attn", "attention"))
    for side, old, new in (*attentions, ("decoder", "encoder_attn", "reading")):
        for number in range(2):
            layer, port = f"bart/{side}/layers/{number}/{old}", f"{side}.blocks.{number}.{new}"
            for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
                found[f"{port}.{name}.kernel"] = left[f"{layer}/{short}_proj/kernel"].reshape(WIDTH, HEADS, -1)
                found[f"{port}.{name}.bias"] = left[f"{layer}/{short}_proj/bias"].reshape(HEADS, -1)
            found[f"{port}.out.kernel"] = left[f"{layer}/out_proj/kernel"].reshape(HEADS, -1, WIDTH)
            found[f"{port}.out.bias"] = left[f"{layer}/out_proj/bias"]
    return found


PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=NEEDS)
