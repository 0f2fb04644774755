"""The discriminator of ELECTRA of transformers against Haiku modules without an activation in its head."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from published_pair import Pair

WIDTH, SMALL, HEADS, ROWS, LENGTH = 32, 16, 4, 64, 8
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.electra import ElectraConfig
    from transformers.models.electra.modeling_flax_electra import FlaxElectraForPreTrainingModule

    config = ElectraConfig(
        vocab_size=ROWS,
        embedding_size=SMALL,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=48,
        max_position_embeddings=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    class Electra(nn.Module):
        @nn.compact
        def __call__(self, ids, kinds):
            model = FlaxElectraForPreTrainingModule(config, name="model")
            positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
            return model(ids, jnp.ones_like(ids), kinds, positions, return_dict=False)[0]

    return Electra()


def port():
    def norm(x, name):
        return hk.LayerNorm(-1, True, True, eps=1e-12, name=name)(x)

    def block(x):
        q, k, v = jnp.split(hk.Linear(3 * WIDTH, name="qkv")(x).reshape(*x.shape[:2], HEADS, -1), 3, -1)
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * (WIDTH // HEADS) ** -0.5)
        found = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        x = norm(x + hk.Linear(WIDTH, name="out")(found), "norm_1")
        wide = jax.nn.gelu(hk.Linear(48, name="up")(x), approximate=False)
        return norm(x + hk.Linear(WIDTH, name="down")(wide), "norm_2")

    def forward(ids, kinds):
        x = hk.Embed(ROWS, SMALL, name="words")(ids) + hk.Embed(2, SMALL, name="kinds")(kinds)
        x = norm(x + hk.get_parameter("places", (10, SMALL), init=jnp.zeros)[:LENGTH], "norm")
        x = hk.Linear(WIDTH, name="widen")(x)
        for number in range(2):
            with hk.name_scope(f"block_{number}"):
                x = block(x)
        return hk.Linear(1, name="score")(hk.Linear(WIDTH, name="head")(x))[..., 0]

    return hk.without_apply_rng(hk.transform(forward))


def by_hand(left):
    found = {
        "words/embeddings": left["model/electra/embeddings/word_embeddings/embedding"],
        "kinds/embeddings": left["model/electra/embeddings/token_type_embeddings/embedding"],
        "~/places": left["model/electra/embeddings/position_embeddings/embedding"],
    }

    def put(old, new):
        ends = (("scale", "scale"), ("bias", "offset")) if "Norm" in old else (("kernel", "w"), ("bias", "b"))
        found.update({f"{new}/{short}": left[f"model/{old}/{leaf}"] for leaf, short in ends})

    put("electra/embeddings/LayerNorm", "norm")
    put("electra/embeddings_project", "widen")
    put("discriminator_predictions/dense", "head")
    put("discriminator_predictions/dense_prediction", "score")
    for number in range(2):
        old, new = f"electra/encoder/layer/{number}", f"block_{number}"
        put(f"{old}/attention/output/dense", f"{new}/out")
        put(f"{old}/attention/output/LayerNorm", f"{new}/norm_1")
        put(f"{old}/intermediate/dense", f"{new}/up")
        put(f"{old}/output/dense", f"{new}/down")
        put(f"{old}/output/LayerNorm", f"{new}/norm_2")
        for leaf, short in (("kernel", "w"), ("bias", "b")):
            parts = [left[f"model/{old}/attention/self/{name}/{leaf}"] for name in ("query", "key", "value")]
            heads = [part.reshape(*part.shape[:-1], HEADS, -1) for part in parts]
            found[f"{new}/qkv/{short}"] = np.concatenate(heads, -1).reshape(*parts[0].shape[:-1], -1)
    return found


BATCH = {"ids": f"int32[2,{LENGTH}]:{ROWS}", "kinds": f"int32[2,{LENGTH}]:2"}
BUG = "the head has no activation"
PAIR = Pair(published, port, BATCH, "different", by_hand, bug=BUG, needs=NEEDS)
