"""Attention: heads are an axis of their own in Flax, and part of the features in Haiku.

Haiku asks for the size of a head, Flax for all heads together. NNX has to be told that it does not decode.
"""

from equiv.case import Case
from equiv.layers import attention


def haiku():
    import haiku as hk

    def forward(x, memory):
        layer = hk.MultiHeadAttention(
            num_heads=2, key_size=3, model_size=7, w_init=hk.initializers.VarianceScaling(1.0)
        )
        return layer(x, memory, memory)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, out_features=7)


def nnx(rngs):
    from flax import nnx

    return nnx.MultiHeadAttention(
        num_heads=2, in_features=9, qkv_features=6, out_features=7, in_kv_features=8, decode=False, rngs=rngs
    )


CASE = Case(
    guide="API references: hk.MultiHeadAttention, nn.MultiHeadDotProductAttention, nnx.MultiHeadAttention",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,9]", "memory": "float32[5,11,8]"},
    layers=(attention("attention", haiku="multi_head_attention", linen="", nnx=""),),
)
