"""Instance norm: equal with Haiku's `eps` of 1e-5, where Flax has 1e-6, and without Flax's fast variance."""

from equiv.case import Case
from equiv.layers import instance_norm


def haiku():
    import haiku as hk

    def forward(x):
        return hk.InstanceNorm(create_scale=True, create_offset=True)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False)


def nnx(rngs):
    from flax import nnx

    return nnx.InstanceNorm(6, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def loss(outputs, batch):
    return (outputs**3).mean()  # the mean square of what is normalised hangs on no input


CASE = Case(
    guide="API references: hk.InstanceNorm, nn.InstanceNorm, nnx.InstanceNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,3,6]"},
    loss=loss,
    layers=(instance_norm("norm", haiku="instance_norm", linen="", nnx=""),),
)
