"""BERT of transformers against an NNX port with one kernel for query, key and value."""

import jax
import jax.numpy as jnp
import numpy as np
from published_names import fuse, rename
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 99, 8

NEEDS = ("transformers==4.57.6",)
BATCH = {
    "ids": f"int32[2,{LENGTH}]:{ROWS}",
    "mask": np.array([[1] * LENGTH, [1] * 5 + [0] * 3], "int32"),
    "kinds": f"int32[2,{LENGTH}]:2",
}


def published():
    """The encoder with its pooler, as the package has it."""
    from flax import linen as nn
    from transformers.models.bert import BertConfig
    from transformers.models.bert.modeling_flax_bert import FlaxBertModule

    config = BertConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=16,
    )

    class Bert(nn.Module):
        @nn.compact
        def __call__(self, ids, mask, kinds, deterministic=True):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            model = FlaxBertModule(config, name="bert")
            return model(ids, mask, kinds, positions, None, deterministic=deterministic, return_dict=False)

    return Bert()


def port(rngs):
    """A port with fused projections and a list of blocks."""
    from flax import nnx

    class Attention(nnx.Module):
        def __init__(self, rngs):
            self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
            self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.drop_weights = nnx.Dropout(0.1, broadcast_dims=(0, 1), rngs=rngs)

        def __call__(self, x, allowed):
            batch, length, _ = x.shape
            qkv = self.qkv(x).reshape(batch, length, 3, HEADS, WIDTH // HEADS)
            q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
            logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(WIDTH // HEADS)
            logits = jnp.where(allowed[:, None, None, :], logits, jnp.finfo(logits.dtype).min)
            weights = self.drop_weights(jax.nn.softmax(logits))
            return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.attention = Attention(rngs)
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)
            self.up = nnx.Linear(WIDTH, 64, rngs=rngs)
            self.down = nnx.Linear(64, WIDTH, rngs=rngs)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x, allowed):
            x = self.norm1(x + self.drop(self.attention(x, allowed)))
            return self.norm2(x + self.drop(self.down(jax.nn.gelu(self.up(x), approximate=False))))

    class Bert(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.places = nnx.Param(jax.random.normal(rngs.params(), (16, WIDTH)) * 0.02)
            self.kinds = nnx.Embed(2, WIDTH, rngs=rngs)
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(2)])
            self.pool = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        def __call__(self, ids, mask, kinds):
            x = self.words(ids) + self.places[:LENGTH] + self.kinds(kinds)
            x = self.drop(self.norm(x))
            for block in self.blocks:
                x = block(x, mask.astype(bool))
            return x, jnp.tanh(self.pool(x[:, 0]))

    return Bert(rngs)


def by_hand(left):
    layer = "bert/encoder/layer/{}/"
    names = {
        "bert/embeddings/word_embeddings": "words",
        "bert/embeddings/position_embeddings/embedding": "places",
        "bert/embeddings/token_type_embeddings": "kinds",
        "bert/embeddings/LayerNorm": "norm",
        layer + "attention/output/dense": "blocks.{}.attention.out",
        layer + "attention/output/LayerNorm": "blocks.{}.norm1",
        layer + "intermediate/dense": "blocks.{}.up",
        layer + "output/dense": "blocks.{}.down",
        layer + "output/LayerNorm": "blocks.{}.norm2",
        "bert/pooler/dense": "pool",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        for leaf in ("kernel", "bias"):
            parts = fuse(left, f"bert/encoder/layer/{number}/attention/self", ("query", "key", "value"), leaf)
            found[f"blocks.{number}.attention.qkv.{leaf}"] = parts
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
