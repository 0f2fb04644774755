"""Convolutions over three axes: nothing is padded with `VALID`, and the kernels are the same arrays."""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Conv3D(7, kernel_shape=(2, 3, 1), padding="VALID")(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Conv(7, kernel_size=(2, 3, 1), padding="VALID")


def nnx(rngs):
    from flax import nnx

    return nnx.Conv(3, 7, kernel_size=(2, 3, 1), padding="VALID", rngs=rngs)


CASE = Case(
    guide="API references: hk.Conv3D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,6,2,3]"},
    layers=(conv("conv", haiku="conv3_d", linen="", nnx=""),),
)
