"""GPT-Neo of transformers, global and local attention by turns, against a Haiku port that scales its logits.

GPT-Neo does not divide by the root of the head size, as nearly every other attention does.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH = 32, 4, 64, 10

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}"}


def published():
    """The language model, with a window of four tokens."""
    from flax import linen as nn
    from transformers.models.gpt_neo import GPTNeoConfig
    from transformers.models.gpt_neo.modeling_flax_gpt_neo import FlaxGPTNeoForCausalLMModule

    config = GPTNeoConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_layers=2,
        num_heads=HEADS,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=16,
        intermediate_size=64,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
    )

    class GPTNeo(nn.Module):
        @nn.compact
        def __call__(self, ids):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            model = FlaxGPTNeoForCausalLMModule(config, name="gpt")
            return model(ids, jnp.ones_like(ids), positions, return_dict=False)[0]

    return GPTNeo()


def port():
    """A port with the usual scale."""
    places = np.arange(LENGTH)
    causal = places[:, None] >= places[None, :]
    local = causal & (places[:, None] - places[None, :] < 4)

    def norm(x, name):
        return hk.LayerNorm(-1, True, True, eps=1e-5, name=name)(x)

    def heads(x):
        return x.reshape(*x.shape[:2], HEADS, WIDTH // HEADS)

    def attention(x, allowed):
        q, k, v = (heads(hk.Linear(WIDTH, with_bias=False, name=name)(x)) for name in ("q", "k", "v"))
        logits = jnp.einsum("bthd,bThd->bhtT", q, k) / np.sqrt(WIDTH // HEADS)
        weights = jax.nn.softmax(jnp.where(allowed, logits, -1e30))
        return hk.Linear(WIDTH, name="o")(jnp.einsum("bhtT,bThd->bthd", weights, v).reshape(x.shape))

    def block(x, allowed, name):
        with hk.name_scope(name):
            x = x + attention(norm(x, "norm_1"), allowed)
            return x + hk.Linear(WIDTH, name="down")(jax.nn.gelu(hk.Linear(64, name="up")(norm(x, "norm_2"))))

    def forward(ids):
        words = hk.Embed(ROWS, WIDTH, name="words")
        x = words(ids) + hk.get_parameter("places", (16, WIDTH), init=hk.initializers.RandomNormal(0.02))[:LENGTH]
        x = norm(block(block(x, causal, "one"), local, "two"), "norm")
        return x @ words.embeddings.T

    return hk.transform(forward)


def by_hand(left):
    found = {
        "words/embeddings": left["gpt/transformer/wte/embedding"],
        "~/places": left["gpt/transformer/wpe/embedding"],
    }
    names = {
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "attn/attention/q_proj": "q",
        "attn/attention/k_proj": "k",
        "attn/attention/v_proj": "v",
        "attn/attention/out_proj": "o",
        "mlp/c_fc": "up",
        "mlp/c_proj": "down",
    }
    ends = {"kernel": "w", "bias": "b"}
    for number, block in enumerate(("one", "two")):
        for path, leaf in left.items():
            layer, _, end = path.removeprefix(f"gpt/transformer/h/{number}/").rpartition("/")
            if layer in names:
                end = {"scale": "scale", "bias": "offset"}[end] if "ln" in layer else ends[end]
                found[f"{block}/{names[layer]}/{end}"] = leaf
    found["norm/scale"] = left["gpt/transformer/ln_f/scale"]
    found["norm/offset"] = left["gpt/transformer/ln_f/bias"]
    return found


PAIR = Pair(
    published, port, BATCH, "different", by_hand, bug="logits are divided by the root of a head's size", needs=NEEDS
)
