"""Embeddings: one table under two names; what is not in the table is another matter.

A number beyond the last word is the last word in Haiku and NaN in Flax.
"""

from equiv.case import Case
from equiv.layers import embed


def haiku():
    import haiku as hk

    def forward(words):
        return hk.Embed(vocab_size=11, embed_dim=6)(words)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Embed(num_embeddings=11, features=6)


def nnx(rngs):
    from flax import nnx

    return nnx.Embed(num_embeddings=11, features=6, rngs=rngs)


CASE = Case(
    guide="API references: hk.Embed, nn.Embed, nnx.Embed",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"words": "int32[5,7]:11"},
    layers=(embed("embed", haiku="embed", linen="", nnx=""),),
)
