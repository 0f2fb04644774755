"""DistilBERT of transformers with its dropout against a Linen port with heads as an axis of its kernels."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 64, 8
NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}", "mask": np.array([[1] * LENGTH, [1] * 5 + [0] * 3], "int32")}


def published():
    from transformers.models.distilbert import DistilBertConfig
    from transformers.models.distilbert.modeling_flax_distilbert import FlaxDistilBertModule

    config = DistilBertConfig(
        vocab_size=ROWS, max_position_embeddings=10, n_layers=2, n_heads=HEADS, dim=WIDTH, hidden_dim=48
    )

    class DistilBert(nn.Module):
        @nn.compact
        def __call__(self, ids, mask, deterministic=True):
            model = FlaxDistilBertModule(config, name="bert")
            return model(ids, mask, deterministic=deterministic, return_dict=False)[0]

    return DistilBert()


class Block(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, mask):
        q, k, v = jnp.moveaxis(nn.DenseGeneral((3, HEADS, WIDTH // HEADS), name="qkv")(x), 2, 0)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(WIDTH // HEADS)
        weights = nn.softmax(jnp.where(mask[:, None, None, :] > 0, logits, -1e30))
        weights = nn.Dropout(0.1, deterministic=not self.train)(weights)
        found = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        x = nn.LayerNorm(epsilon=1e-12, name="norm1")(x + nn.DenseGeneral(WIDTH, (-2, -1), name="out")(found))
        wide = nn.gelu(nn.Dense(48, name="up")(x), approximate=False)
        fed = nn.Dropout(0.1, deterministic=not self.train)(nn.Dense(WIDTH, name="down")(wide))
        return nn.LayerNorm(epsilon=1e-12, name="norm2")(x + fed)


class Port(nn.Module):
    @nn.compact
    def __call__(self, ids, mask, train=False):
        places = self.param("places", nn.initializers.normal(0.02), (10, WIDTH))
        x = nn.Embed(ROWS, WIDTH, name="words")(ids) + places[:LENGTH]
        x = nn.Dropout(0.1, deterministic=not train)(nn.LayerNorm(epsilon=1e-12, name="norm")(x))
        for number in range(2):
            x = Block(train, name=f"block{number}")(x, mask)
        return x


def by_hand(left):
    found = {"places": left["bert/embeddings/position_embeddings/embedding"]}
    found["words/embedding"] = left["bert/embeddings/word_embeddings/embedding"]
    found |= {f"norm/{leaf}": left[f"bert/embeddings/LayerNorm/{leaf}"] for leaf in ("scale", "bias")}
    for number in range(2):
        old, new = f"bert/transformer/layer/{number}", f"block{number}"
        for one, other in (("sa_layer_norm", "norm1"), ("output_layer_norm", "norm2")):
            found |= {f"{new}/{other}/{leaf}": left[f"{old}/{one}/{leaf}"] for leaf in ("scale", "bias")}
        for one, other in (("ffn/lin1", "up"), ("ffn/lin2", "down")):
            found |= {f"{new}/{other}/{leaf}": left[f"{old}/{one}/{leaf}"] for leaf in ("kernel", "bias")}
        for leaf in ("kernel", "bias"):
            parts = [left[f"{old}/attention/{name}_lin/{leaf}"] for name in "qkv"]
            heads = [part.reshape(*part.shape[:-1], HEADS, -1) for part in parts]
            found[f"{new}/qkv/{leaf}"] = np.stack(heads, -3)
        found[f"{new}/out/kernel"] = left[f"{old}/attention/out_lin/kernel"].reshape(HEADS, -1, WIDTH)
        found[f"{new}/out/bias"] = left[f"{old}/attention/out_lin/bias"]
    return found


PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=NEEDS)
