"""Layer norm: equal with Haiku's `eps` of 1e-5, where Flax has 1e-6, and without Flax's fast variance."""

from equiv.case import Case
from equiv.layers import layer_norm


def haiku():
    import haiku as hk

    def forward(x):
        return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)


def nnx(rngs):
    from flax import nnx

    return nnx.LayerNorm(7, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


CASE = Case(
    guide="API references: hk.LayerNorm, nn.LayerNorm, nnx.LayerNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,3,7]"},
    layers=(layer_norm("norm", haiku="layer_norm", linen="", nnx=""),),
)
