"""RMS norm: equal with Haiku's `eps` of 1e-5, where Flax has 1e-6."""

from equiv.case import Case
from equiv.layers import rms_norm


def haiku():
    import haiku as hk

    def forward(x):
        return hk.RMSNorm(axis=-1)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.RMSNorm(epsilon=1e-5)


def nnx(rngs):
    from flax import nnx

    return nnx.RMSNorm(7, epsilon=1e-5, rngs=rngs)


CASE = Case(
    guide="API references: hk.RMSNorm, nn.RMSNorm, nnx.RMSNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,3,7]"},
    layers=(rms_norm("norm", haiku="rms_norm", linen="", nnx=""),),
)
