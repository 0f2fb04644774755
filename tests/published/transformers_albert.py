"""ALBERT of transformers, one block called again and again, against a Linen port that scans it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from published_names import rename
from published_pair import Pair

WIDTH, SMALL, HEADS, ROWS, LENGTH = 32, 16, 4, 64, 8

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}", "mask": np.array([[1] * LENGTH, [1] * 5 + [0] * 3], "int32")}


def published():
    """The encoder with its pooler, without dropout."""
    from transformers.models.albert import AlbertConfig
    from transformers.models.albert.modeling_flax_albert import FlaxAlbertModule

    config = AlbertConfig(
        vocab_size=ROWS,
        embedding_size=SMALL,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=16,
    )

    class Albert(nn.Module):
        @nn.compact
        def __call__(self, ids, mask):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return FlaxAlbertModule(config, name="albert")(ids, mask, jnp.zeros_like(ids), positions, return_dict=False)

    return Albert()


def port():
    """A port whose one block is the body of a loop."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            heads = (HEADS, WIDTH // HEADS)
            q, k, v = (nn.DenseGeneral(heads, name=name)(x) for name in ("query", "key", "value"))
            found = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :] > 0)
            x = nn.LayerNorm(epsilon=1e-12, name="norm_1")(x + nn.DenseGeneral(WIDTH, (-2, -1), name="out")(found))
            fed = nn.Dense(WIDTH, name="down")(nn.gelu(nn.Dense(64, name="up")(x)))
            return nn.LayerNorm(epsilon=1e-12, name="norm_2")(x + fed), None

    class Albert(nn.Module):
        @nn.compact
        def __call__(self, ids, mask):
            x = nn.Embed(ROWS, SMALL, name="words")(ids)
            x += nn.Embed(16, SMALL, name="places")(jnp.arange(LENGTH))
            x += nn.Embed(2, SMALL, name="kinds")(jnp.zeros_like(ids))
            x = nn.Dense(WIDTH, name="widen")(nn.LayerNorm(epsilon=1e-12, name="norm")(x))
            loop = nn.scan(
                Block, variable_broadcast="params", split_rngs={"params": False}, in_axes=nn.broadcast, length=3
            )
            x, _ = loop(name="block")(x, mask)
            return x, nn.tanh(nn.Dense(WIDTH, name="pool")(x[:, 0]))

    return Albert()


def by_hand(left):
    layer = "albert/encoder/albert_layer_groups/0/albert_layers/0/"
    names = {
        "albert/embeddings/word_embeddings": "words",
        "albert/embeddings/position_embeddings": "places",
        "albert/embeddings/token_type_embeddings": "kinds",
        "albert/embeddings/LayerNorm": "norm",
        "albert/encoder/embedding_hidden_mapping_in": "widen",
        layer + "attention/LayerNorm": "block/norm_1",
        layer + "ffn": "block/up",
        layer + "ffn_output": "block/down",
        layer + "full_layer_layer_norm": "block/norm_2",
        layer + "attention/dense/bias": "block/out/bias",
        "albert/pooler": "pool",
    }
    found = rename(left, names, join="/")
    for name in ("query", "key", "value"):
        kernel, bias = (left[f"{layer}attention/{name}/{leaf}"] for leaf in ("kernel", "bias"))
        found[f"block/{name}/kernel"] = kernel.reshape(WIDTH, HEADS, -1)
        found[f"block/{name}/bias"] = bias.reshape(HEADS, -1)
    found["block/out/kernel"] = left[f"{layer}attention/dense/kernel"].reshape(HEADS, -1, WIDTH)
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
