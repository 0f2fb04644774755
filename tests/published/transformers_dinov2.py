"""Dinov2 of transformers against a scanned Linen port that uses its layer scale once.

transformers 4.57 multiplies a leaf of ones by `layerscale_value` twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from published_pair import Pair

WIDTH, HEADS, PATCH, SCALE = 32, 4, 4, 0.1
NEEDS = ("transformers==4.57.6",)


def published():
    from transformers.models.dinov2 import Dinov2Config
    from transformers.models.dinov2.modeling_flax_dinov2 import FlaxDinov2Module

    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        mlp_ratio=2,
        image_size=2 * PATCH,
        patch_size=PATCH,
        layerscale_value=SCALE,
        use_mask_token=False,
    )

    class Dinov2(nn.Module):
        @nn.compact
        def __call__(self, image):
            return FlaxDinov2Module(config, name="dino")(image, return_dict=False)[0]

    return Dinov2()


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        heads = (HEADS, WIDTH // HEADS)
        normed = nn.LayerNorm(epsilon=1e-6, name="norm1")(x)
        q, k, v = (nn.DenseGeneral(heads, name=name)(normed) for name in "qkv")
        found = nn.DenseGeneral(WIDTH, (-2, -1), name="out")(jax.nn.dot_product_attention(q, k, v))
        x = x + SCALE * self.param("gamma1", nn.initializers.ones, (WIDTH,)) * found
        wide = nn.gelu(nn.Dense(2 * WIDTH, name="up")(nn.LayerNorm(epsilon=1e-6, name="norm2")(x)), approximate=False)
        return x + SCALE * self.param("gamma2", nn.initializers.ones, (WIDTH,)) * nn.Dense(WIDTH, name="down")(
            wide
        ), None


class Port(nn.Module):
    @nn.compact
    def __call__(self, image):
        x = nn.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH), padding="VALID", name="patches")(image)
        x = x.reshape(len(image), -1, WIDTH)
        first = self.param("first", nn.initializers.zeros, (1, 1, WIDTH))
        x = jnp.concatenate([jnp.tile(first, (len(image), 1, 1)), x], 1)
        x = x + self.param("places", nn.initializers.zeros, x.shape[1:])
        x, _ = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)(name="blocks")(
            x, None
        )
        return nn.LayerNorm(epsilon=1e-6, name="norm")(x)


def by_hand(left):
    found = {
        "first": left["dino/embeddings/cls_token"],
        "places": left["dino/embeddings/position_embeddings"][0],
    }
    for leaf in ("kernel", "bias"):
        found[f"patches/{leaf}"] = left[f"dino/embeddings/patch_embeddings/projection/{leaf}"]
    for leaf in ("scale", "bias"):
        found[f"norm/{leaf}"] = left[f"dino/layernorm/{leaf}"]

    def put(new, old, change=lambda leaf: leaf):
        found[f"blocks/{new}"] = np.stack([change(left[f"dino/encoder/layer/{number}/{old}"]) for number in range(2)])

    for new, old in (("q", "query"), ("k", "key"), ("v", "value")):
        put(f"{new}/kernel", f"attention/attention/{old}/kernel", lambda leaf: leaf.reshape(WIDTH, HEADS, -1))
        put(f"{new}/bias", f"attention/attention/{old}/bias", lambda leaf: leaf.reshape(HEADS, -1))
    put("out/kernel", "attention/output/dense/kernel", lambda leaf: leaf.reshape(HEADS, -1, WIDTH))
    put("out/bias", "attention/output/dense/bias")
    for number in (1, 2):
        put(f"gamma{number}", f"layer_scale{number}/lambda1")
        put(f"norm{number}/scale", f"norm{number}/scale")
        put(f"norm{number}/bias", f"norm{number}/bias")
    for new, old in (("up", "fc1"), ("down", "fc2")):
        put(f"{new}/kernel", f"mlp/{old}/kernel")
        put(f"{new}/bias", f"mlp/{old}/bias")
    return found


BUG = "the layer scale is used once, not twice"
PAIR = Pair(
    published, Port, {"image": f"float32[2,{2 * PATCH},{2 * PATCH},3]"}, "different", by_hand, bug=BUG, needs=NEEDS
)
