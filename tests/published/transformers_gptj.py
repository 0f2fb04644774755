"""GPT-J of transformers, rotary positions and parallel branches, against an NNX port that rotates complex numbers."""

import jax
import jax.numpy as jnp
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, TURNED, ROWS, LENGTH = 32, 2, 8, 64, 8

NEEDS = ("transformers==4.57.6",)
BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}"}


def published():
    """The language model without dropout."""
    from flax import linen as nn
    from transformers.models.gptj import GPTJConfig
    from transformers.models.gptj.modeling_flax_gptj import FlaxGPTJForCausalLMModule

    config = GPTJConfig(
        vocab_size=ROWS,
        n_positions=16,
        n_embd=WIDTH,
        n_layer=2,
        n_head=HEADS,
        rotary_dim=TURNED,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
    )

    class GPTJ(nn.Module):
        @nn.compact
        def __call__(self, ids):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return FlaxGPTJForCausalLMModule(config, name="gpt")(ids, jnp.ones_like(ids), positions, return_dict=False)[
                0
            ]

    return GPTJ()


def port(rngs):
    """A port that turns pairs of channels as complex numbers."""
    from flax import nnx

    def turn(x):
        angles = jnp.arange(x.shape[1])[:, None] * 10000.0 ** (-jnp.arange(0, TURNED, 2) / TURNED)
        pairs = x[..., :TURNED].reshape(*x.shape[:-1], TURNED // 2, 2)
        turned = jax.lax.complex(pairs[..., 0], pairs[..., 1]) * jnp.exp(1j * angles)[:, None, :]
        back = jnp.stack([turned.real, turned.imag], -1).reshape(*x.shape[:-1], TURNED)
        return jnp.concatenate([back, x[..., TURNED:]], -1)

    class Block(nnx.Module):
        def __init__(self):
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            make = nnx.LinearGeneral
            self.q, self.k, self.v = (make(WIDTH, (HEADS, WIDTH // HEADS), use_bias=False, rngs=rngs) for _ in range(3))
            self.o = make((HEADS, WIDTH // HEADS), WIDTH, axis=(-2, -1), use_bias=False, rngs=rngs)
            self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
            self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x):
            normed = self.norm(x)
            found = jax.nn.dot_product_attention(
                turn(self.q(normed)), turn(self.k(normed)), self.v(normed), is_causal=True
            )
            return x + self.o(found) + self.down(jax.nn.gelu(self.up(normed)))

    class GPTJ(nnx.Module):
        def __init__(self):
            self.words = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(2)])
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.head = nnx.Linear(WIDTH, ROWS, rngs=rngs)

        def __call__(self, ids):
            x = self.words(ids)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return GPTJ()


def by_hand(left):
    layer = "gpt/transformer/h/{}/"
    names = {
        "gpt/transformer/wte": "words",
        layer + "ln_1": "blocks.{}.norm",
        layer + "mlp/fc_in": "blocks.{}.up",
        layer + "mlp/fc_out": "blocks.{}.down",
        "gpt/transformer/ln_f": "norm",
        "gpt/lm_head": "head",
    }
    found = rename(left, names, layers=2)
    for number in range(2):
        for name in ("q", "k", "v"):
            kernel = left[f"gpt/transformer/h/{number}/attn/{name}_proj/kernel"]
            found[f"blocks.{number}.{name}.kernel"] = kernel.reshape(WIDTH, HEADS, -1)
        kernel = left[f"gpt/transformer/h/{number}/attn/out_proj/kernel"]
        found[f"blocks.{number}.o.kernel"] = kernel.reshape(HEADS, -1, WIDTH)
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
