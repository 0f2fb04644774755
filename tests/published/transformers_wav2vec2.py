"""Wav2Vec2 of transformers, raw audio to hidden states, against an NNX port that keeps its own weight norm."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import fuse, rename
from published_pair import Pair

WIDTH, HEADS, CHANNELS, TAPS = 32, 4, 16, 6
NEEDS = ("transformers==4.57.6",)
BATCH = {"audio": "float32[2,80]", "hidden": np.arange(38).reshape(2, 19) % 7 == 3}


def published():
    from flax import linen as nn
    from transformers.models.wav2vec2 import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_flax_wav2vec2 import FlaxWav2Vec2Module

    config = Wav2Vec2Config(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=48,
        conv_dim=(CHANNELS, CHANNELS),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        conv_bias=True,
        num_conv_pos_embeddings=TAPS,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )

    class Wav2Vec2(nn.Module):
        @nn.compact
        def __call__(self, audio, hidden):
            model = FlaxWav2Vec2Module(config, name="wav2vec2")
            return model(audio, mask_time_indices=hidden, return_dict=False)[:2]

    return Wav2Vec2()


def gelu(x):
    return 0.5 * x * (1 + jax.lax.erf(x / np.sqrt(2)))


class Extract(nnx.Module):
    def __init__(self, inputs, rngs):
        self.conv = nnx.Conv(inputs, CHANNELS, 3, 2, padding="VALID", rngs=rngs)
        self.norm = nnx.LayerNorm(CHANNELS, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return gelu(self.norm(self.conv(x)))


class Places(nnx.Module):
    def __init__(self, rngs):
        self.direction = nnx.Param(jax.random.normal(rngs.params(), (TAPS, WIDTH // 4, WIDTH)))
        self.length = nnx.Param(jnp.ones(TAPS))
        self.bias = nnx.Param(jnp.zeros(WIDTH))

    def __call__(self, x):
        direction = self.direction[...]
        size = jnp.sqrt((direction**2).sum((1, 2), keepdims=True))
        kernel = direction / size * self.length[:, None, None]
        found = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            [(TAPS // 2, TAPS // 2 - 1)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=4,
        )
        return gelu(found + self.bias[...])


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)

    def __call__(self, x):
        q, k, v = (part.reshape(*x.shape[:2], HEADS, -1) for part in jnp.split(self.qkv(self.norm1(x)), 3, -1))
        x = x + self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.extract = nnx.List([Extract(1, rngs), Extract(CHANNELS, rngs)])
        self.norm_in = nnx.LayerNorm(CHANNELS, epsilon=1e-5, rngs=rngs)
        self.widen = nnx.Linear(CHANNELS, WIDTH, rngs=rngs)
        self.blank = nnx.Param(jnp.zeros(WIDTH))
        self.places = Places(rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)

    def __call__(self, audio, hidden):
        x = audio[..., None]
        for layer in self.extract:
            x = layer(x)
        features = self.norm_in(x)
        x = jnp.where(hidden[..., None], self.blank[...], self.widen(features))
        x = x + self.places(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), features


def by_hand(left):
    layer = "wav2vec2/encoder/layers/{}/"
    names = {
        "wav2vec2/feature_extractor/conv_layers/{}/conv": "extract.{}.conv",
        "wav2vec2/feature_extractor/conv_layers/{}/layer_norm": "extract.{}.norm",
        "wav2vec2/feature_projection/layer_norm": "norm_in",
        "wav2vec2/feature_projection/projection": "widen",
        "wav2vec2/masked_spec_embed": "blank",
        "wav2vec2/encoder/pos_conv_embed/conv/bias": "places.bias",
        layer + "layer_norm": "blocks.{}.norm1",
        layer + "attention/out_proj": "blocks.{}.out",
        layer + "final_layer_norm": "blocks.{}.norm2",
        layer + "feed_forward/intermediate_dense": "blocks.{}.up",
        layer + "feed_forward/output_dense": "blocks.{}.down",
        "wav2vec2/encoder/layer_norm": "norm",
    }
    found = rename(left, names, layers=2)
    conv = "wav2vec2/encoder/pos_conv_embed/conv"
    found["places.direction"] = left[f"{conv}/weight_v"].transpose(2, 1, 0)
    found["places.length"] = left[f"{conv}/weight_g"][0, 0]
    for number in range(2):
        for leaf in ("kernel", "bias"):
            parts = fuse(left, f"wav2vec2/encoder/layers/{number}/attention", ("q_proj", "k_proj", "v_proj"), leaf)
            found[f"blocks.{number}.qkv.{leaf}"] = parts
    return found


PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=NEEDS)
