"""Depthwise convolutions: Flax has none of its own, it counts as many groups as the input has channels."""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.DepthwiseConv2D(channel_multiplier=2, kernel_shape=(3, 2))(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Conv(8, kernel_size=(3, 2), feature_group_count=4)


def nnx(rngs):
    from flax import nnx

    return nnx.Conv(4, 8, kernel_size=(3, 2), feature_group_count=4, rngs=rngs)


CASE = Case(
    guide="API references: hk.DepthwiseConv2D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,6,7,4]"},
    layers=(conv("conv", haiku="depthwise_conv2_d", linen="", nnx=""),),
)
