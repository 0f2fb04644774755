"""Convolutions over one axis: the window is a number in Haiku and has to be a tuple in Flax.

`nn.Conv(6, 3)` is a convolution over one axis whatever the input has, and runs without a word.
"""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Conv1D(6, kernel_shape=3, stride=2)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Conv(6, kernel_size=(3,), strides=2)


def nnx(rngs):
    from flax import nnx

    return nnx.Conv(4, 6, kernel_size=(3,), strides=2, rngs=rngs)


CASE = Case(
    guide="API references: hk.Conv1D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,9,4]"},
    layers=(conv("conv", haiku="conv1_d", linen="", nnx=""),),
)
