"""Transposed convolutions: Haiku's kernel is (.., out, in), Flax's (.., in, out), and neither is flipped."""

from equiv.case import Case
from equiv.layers import conv_transpose


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Conv2DTranspose(6, kernel_shape=(3, 2), stride=2)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.ConvTranspose(6, kernel_size=(3, 2), strides=(2, 2))


def nnx(rngs):
    from flax import nnx

    return nnx.ConvTranspose(4, 6, kernel_size=(3, 2), strides=(2, 2), rngs=rngs)


CASE = Case(
    guide="API references: hk.Conv2DTranspose, nn.ConvTranspose, nnx.ConvTranspose",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,3,4]"},
    layers=(conv_transpose("up", haiku="conv2_d_transpose", linen="", nnx=""),),
)
