"""BEiT of transformers, relative positions and layer scale, against an NNX port of stacked projections."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, SIDE, PATCH = 32, 4, 3, 4
TOKENS = SIDE * SIDE + 1
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.beit import BeitConfig
    from transformers.models.beit.modeling_flax_beit import FlaxBeitModule

    config = BeitConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=48,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        use_relative_position_bias=True,
        use_mean_pooling=True,
        drop_path_rate=0.0,
    )

    class Beit(nn.Module):
        @nn.compact
        def __call__(self, image):
            return FlaxBeitModule(config, name="beit")(image, return_dict=False)

    return Beit()


def offsets():
    """Which row of the table is between two tokens: two of patches, then to, from and at the class token."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    down, right = (one[:, None] - one[None, :] + SIDE - 1 for one in (rows, columns))
    last = (2 * SIDE - 1) ** 2
    found = np.pad(down * (2 * SIDE - 1) + right, ((1, 0), (1, 0)), constant_values=last)
    found[1:, 0], found[0, 0] = last + 1, last + 2
    return found


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)
        self.to_qkv = nnx.Param(jax.random.normal(rngs.params(), (WIDTH, 3, HEADS, WIDTH // HEADS)) * 0.1)
        self.q_bias = nnx.Param(jnp.zeros((HEADS, WIDTH // HEADS)))
        self.v_bias = nnx.Param(jnp.zeros((HEADS, WIDTH // HEADS)))
        self.table = nnx.Param(jnp.zeros(((2 * SIDE - 1) ** 2 + 3, HEADS)))
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.gamma1, self.gamma2 = nnx.Param(0.1 * jnp.ones(WIDTH)), nnx.Param(0.1 * jnp.ones(WIDTH))
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)

    def __call__(self, x):
        q, k, v = jnp.einsum("btd,dphs->pbths", self.norm1(x), self.to_qkv[...])
        q, v = q + self.q_bias[...], v + self.v_bias[...]
        bias = self.table[...][offsets()].transpose(2, 0, 1)[None]
        found = jax.nn.dot_product_attention(q, k, v, bias=bias)
        x = x + self.gamma1 * self.out(found.reshape(x.shape))
        return x + self.gamma2 * self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.patches = nnx.Conv(3, WIDTH, (PATCH, PATCH), (PATCH, PATCH), padding="VALID", rngs=rngs)
        self.first = nnx.Param(jnp.zeros(WIDTH))
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-12, rngs=rngs)

    def __call__(self, image):
        x = self.patches(image).reshape(len(image), -1, WIDTH)
        x = jnp.concatenate([jnp.broadcast_to(self.first[...], (len(image), 1, WIDTH)), x], 1)
        for block in self.blocks:
            x = block(x)
        return x, self.norm(x[:, 1:].mean(1))


def by_hand(left):
    layer = "beit/encoder/layer/{}/"
    names = {
        "beit/embeddings/patch_embeddings/projection": "patches",
        layer + "layernorm_before": "blocks.{}.norm1",
        layer + "attention/attention/relative_position_bias/relative_position_bias_table": "blocks.{}.table",
        layer + "attention/output/dense": "blocks.{}.out",
        layer + "lambda_1": "blocks.{}.gamma1",
        layer + "lambda_2": "blocks.{}.gamma2",
        layer + "layernorm_after": "blocks.{}.norm2",
        layer + "intermediate/dense": "blocks.{}.up",
        layer + "output/dense": "blocks.{}.down",
        "beit/pooler/layernorm": "norm",
    }
    found = rename(left, names, layers=2)
    found["first"] = left["beit/embeddings/cls_token"].ravel()
    for number in range(2):
        old, heads = f"beit/encoder/layer/{number}/attention/attention", (HEADS, WIDTH // HEADS)
        parts = [left[f"{old}/{name}/kernel"].reshape(WIDTH, *heads) for name in ("query", "key", "value")]
        found[f"blocks.{number}.to_qkv"] = np.stack(parts, 1)
        found[f"blocks.{number}.q_bias"] = left[f"{old}/query/bias"].reshape(heads)
        found[f"blocks.{number}.v_bias"] = left[f"{old}/value/bias"].reshape(heads)
    return found


PAIR = Pair(published, Port, {"image": f"float32[2,{SIDE * PATCH},{SIDE * PATCH},3]"}, "same", by_hand, needs=NEEDS)
