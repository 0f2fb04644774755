"""Separable depthwise convolutions: in Haiku two depthwise windows in a row, (height, 1) and (1, width).

They are not what others call separable: no window of one mixes the channels.
"""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.SeparableDepthwiseConv2D(channel_multiplier=2, kernel_shape=(3, 2))(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class SeparableDepthwiseConv2D(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, kernel_size=(3, 1), feature_group_count=4, use_bias=False)(x)
            return nn.Conv(8, kernel_size=(1, 2), feature_group_count=8)(x)

    return SeparableDepthwiseConv2D()


def nnx(rngs):
    from flax import nnx

    class SeparableDepthwiseConv2D(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.height = nnx.Conv(4, 8, kernel_size=(3, 1), feature_group_count=4, use_bias=False, rngs=rngs)
            self.width = nnx.Conv(8, 8, kernel_size=(1, 2), feature_group_count=8, rngs=rngs)

        def __call__(self, x):
            return self.width(self.height(x))

    return SeparableDepthwiseConv2D(rngs)


CASE = Case(
    guide="API references: hk.SeparableDepthwiseConv2D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,6,7,4]"},
    layers=(
        conv("height", haiku="separable_depthwise_conv2_d/~/depthwise_conv2_d", linen="Conv_0", nnx="height"),
        conv("width", haiku="separable_depthwise_conv2_d/~/depthwise_conv2_d_1", linen="Conv_1", nnx="width"),
    ),
)
