"""CLIP of transformers, text and image encoders with a learned temperature, against Haiku modules."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

WIDTH, HEADS, ROWS, LENGTH, SHARED = 32, 4, 64, 7, 12
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.clip import CLIPConfig
    from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": ROWS, "max_position_embeddings": 10, "eos_token_id": ROWS - 1},
        vision_config=sizes | {"image_size": 8, "patch_size": 4},
        projection_dim=SHARED,
    )

    class Clip(nn.Module):
        @nn.compact
        def __call__(self, ids, image):
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return FlaxCLIPModule(config, name="clip")(ids, image, jnp.ones_like(ids), positions, return_dict=False)[:4]

    return Clip()


def port():
    def norm(x, name):
        return hk.LayerNorm(-1, True, True, eps=1e-5, name=name)(x)

    def encoder(x, mask):
        for number in range(2):
            with hk.name_scope(f"block_{number}"):
                init = hk.initializers.VarianceScaling()
                normed = norm(x, "norm_1")
                x += hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=init)(normed, normed, normed, mask)
                wide = hk.Linear(48, name="up")(norm(x, "norm_2"))
                x += hk.Linear(WIDTH, name="down")(wide * jax.nn.sigmoid(1.702 * wide))
        return x

    def text(ids):
        x = hk.Embed(ROWS, WIDTH, name="words")(ids)
        x += hk.get_parameter("places", (10, WIDTH), init=jnp.zeros)[:LENGTH]
        x = norm(encoder(x, np.tril(np.ones((1, 1, LENGTH, LENGTH), bool))), "norm")
        last = jnp.argmax(ids == ROWS - 1, axis=1)
        return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]

    def vision(image):
        patches = image.reshape(len(image), 2, 4, 2, 4, 3).swapaxes(2, 3).reshape(len(image), 4, 48)
        x = hk.Linear(WIDTH, with_bias=False, name="patches")(patches)
        first = hk.get_parameter("class", (1, 1, WIDTH), init=jnp.zeros)
        x = jnp.concatenate([jnp.tile(first, (len(image), 1, 1)), x], axis=1)
        x += hk.get_parameter("places", (5, WIDTH), init=jnp.zeros)
        return norm(encoder(norm(x, "norm_before"), None)[:, 0], "norm")

    def forward(ids, image):
        with hk.name_scope("vision"):
            seen = hk.Linear(SHARED, with_bias=False, name="project")(vision(image))
        with hk.name_scope("text"):
            read = hk.Linear(SHARED, with_bias=False, name="project")(text(ids))
        seen, read = (x / jnp.sqrt((x * x).sum(-1, keepdims=True)) for x in (seen, read))
        scores = jnp.exp(hk.get_parameter("temperature", (), init=jnp.ones)) * seen @ read.T
        return scores, scores.T, read, seen

    return hk.without_apply_rng(hk.transform(forward))


def by_hand(left):
    found = {
        "~/temperature": left["clip/logit_scale"],
        "text/words/embeddings": left["clip/text_model/embeddings/token_embedding/embedding"],
        "text/places": left["clip/text_model/embeddings/position_embedding/embedding"],
        "text/project/w": left["clip/text_projection/kernel"],
        "vision/project/w": left["clip/visual_projection/kernel"],
        "vision/class": left["clip/vision_model/embeddings/class_embedding"][None, None],
        "vision/places": left["clip/vision_model/embeddings/position_embedding/embedding"],
        "vision/patches/w": left["clip/vision_model/embeddings/patch_embedding/kernel"].reshape(48, WIDTH),
    }

    def put(old, new, ends):
        found.update({f"{new}/{short}": left[f"clip/{old}/{leaf}"] for leaf, short in ends})

    norm_ends, linear_ends = (("scale", "scale"), ("bias", "offset")), (("kernel", "w"), ("bias", "b"))
    put("text_model/final_layer_norm", "text/norm", norm_ends)
    put("vision_model/pre_layrnorm", "vision/norm_before", norm_ends)
    put("vision_model/post_layernorm", "vision/norm", norm_ends)
    for side in ("text", "vision"):
        for number in range(2):
            old, new = f"{side}_model/encoder/layers/{number}", f"{side}/block_{number}"
            put(f"{old}/layer_norm1", f"{new}/norm_1", norm_ends)
            put(f"{old}/layer_norm2", f"{new}/norm_2", norm_ends)
            put(f"{old}/mlp/fc1", f"{new}/up", linear_ends)
            put(f"{old}/mlp/fc2", f"{new}/down", linear_ends)
            for name, layer in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "linear")):
                put(f"{old}/self_attn/{name}", f"{new}/multi_head_attention/{layer}", linear_ends)
    return found


BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}", "image": "float32[3,8,8,3]"}
PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
