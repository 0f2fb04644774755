"""Group norm: equal with Haiku's `eps` of 1e-5, where Flax has 1e-6, and without Flax's fast variance."""

from equiv.case import Case
from equiv.layers import group_norm


def haiku():
    import haiku as hk

    def forward(x):
        return hk.GroupNorm(groups=2)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.GroupNorm(num_groups=2, epsilon=1e-5, use_fast_variance=False)


def nnx(rngs):
    from flax import nnx

    return nnx.GroupNorm(6, num_groups=2, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


CASE = Case(
    guide="API references: hk.GroupNorm, nn.GroupNorm, nnx.GroupNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,3,6]"},
    layers=(group_norm("norm", haiku="group_norm", linen="", nnx=""),),
)
