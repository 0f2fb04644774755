"""The encoder of Whisper of transformers, positions a leaf without a gradient, against `hk.layer_stack`."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

WIDTH, HEADS, BANDS, LENGTH = 32, 4, 6, 8
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.whisper import WhisperConfig
    from transformers.models.whisper.modeling_flax_whisper import FlaxWhisperEncoder

    config = WhisperConfig(
        num_mel_bins=BANDS,
        d_model=WIDTH,
        encoder_layers=2,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        max_source_positions=LENGTH,
        dropout=0.0,
    )

    class Whisper(nn.Module):
        @nn.compact
        def __call__(self, sound):
            return FlaxWhisperEncoder(config, name="encoder")(sound, return_dict=False)[0]

    return Whisper()


def port():
    def block(x):
        def norm(name):
            return hk.LayerNorm(-1, True, True, eps=1e-5, name=name)(x)

        def project(name, bias=True):
            return hk.Linear(WIDTH, bias, name=name)(normed).reshape(*x.shape[:2], HEADS, -1)

        normed = norm("before_attention")
        q, k, v = project("q"), project("k", False), project("v")
        x += hk.Linear(WIDTH, name="o")(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))
        wide = jax.nn.gelu(hk.Linear(48, name="up")(norm("before_feed")), approximate=False)
        return x + hk.Linear(WIDTH, name="down")(wide)

    def forward(sound):
        x = sound.swapaxes(1, 2)
        x = jax.nn.gelu(hk.Conv1D(WIDTH, 3, name="conv_1")(x), approximate=False)
        x = jax.nn.gelu(hk.Conv1D(WIDTH, 3, 2, padding=(1, 1), name="conv_2")(x), approximate=False)
        x += jax.lax.stop_gradient(hk.get_parameter("places", (LENGTH, WIDTH), init=jnp.zeros))
        x = hk.experimental.layer_stack(2)(block)(x)
        return hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)

    return hk.without_apply_rng(hk.transform(forward))


def by_hand(left):
    found = {"~/places": left["encoder/embed_positions/embedding"]}
    for old, new in (("conv1", "conv_1"), ("conv2", "conv_2")):
        found |= {f"{new}/w": left[f"encoder/{old}/kernel"], f"{new}/b": left[f"encoder/{old}/bias"]}
    found |= {"norm/scale": left["encoder/layer_norm/scale"], "norm/offset": left["encoder/layer_norm/bias"]}
    names = {
        "self_attn_layer_norm": "before_attention",
        "self_attn/q_proj": "q",
        "self_attn/k_proj": "k",
        "self_attn/v_proj": "v",
        "self_attn/out_proj": "o",
        "final_layer_norm": "before_feed",
        "fc1": "up",
        "fc2": "down",
    }
    prefix = "__layer_stack_no_per_layer_0/~_stack_/" if False else "__layer_stack_no_per_layer/"
    for old, new in names.items():
        for leaf in ("scale", "kernel", "bias"):
            if f"encoder/layers/0/{old}/{leaf}" in left:
                end = {"scale": "scale", "kernel": "w", "bias": "offset" if "norm" in old else "b"}[leaf]
                found[f"{prefix}{new}/{end}"] = np.stack(
                    [left[f"encoder/layers/{number}/{old}/{leaf}"] for number in range(2)]
                )
    return found


PAIR = Pair(published, port, {"sound": f"float32[2,{BANDS},{2 * LENGTH}]"}, "same", by_hand, needs=NEEDS)
