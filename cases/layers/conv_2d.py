"""Convolutions over two axes, in groups and dilated: `rate` is `kernel_dilation`, kernels are the same arrays."""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Conv2D(6, kernel_shape=(3, 2), rate=(1, 2), feature_group_count=2)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Conv(6, kernel_size=(3, 2), kernel_dilation=(1, 2), feature_group_count=2)


def nnx(rngs):
    from flax import nnx

    return nnx.Conv(4, 6, kernel_size=(3, 2), kernel_dilation=(1, 2), feature_group_count=2, rngs=rngs)


CASE = Case(
    guide="API references: hk.Conv2D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,8,7,4]"},
    layers=(conv("conv", haiku="conv2_d", linen="", nnx=""),),
)
