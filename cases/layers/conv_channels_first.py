"""Channels first: Haiku takes them, with a bias of (out, 1, 1); in Flax the activations are transposed."""

from equiv.case import Case
from equiv.layers import conv


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Conv2D(6, kernel_shape=(3, 2), data_format="NCHW")(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, kernel_size=(3, 2))(jnp.moveaxis(x, 1, -1))
            return jnp.moveaxis(x, -1, 1)

    return Model()


def nnx(rngs):
    import jax.numpy as jnp
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv = nnx.Conv(4, 6, kernel_size=(3, 2), rngs=rngs)

        def __call__(self, x):
            return jnp.moveaxis(self.conv(jnp.moveaxis(x, 1, -1)), -1, 1)

    return Model(rngs)


CASE = Case(
    guide="API references: hk.Conv2D, nn.Conv, nnx.Conv",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,8,7]"},
    layers=(conv("conv", channels_first=2, haiku="conv2_d", linen="Conv_0", nnx="conv"),),
)
