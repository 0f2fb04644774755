"""Linear layers: the same array under three names.

Haiku's `w` and `b` take the dtype of the input, Flax's `kernel` and `bias` are float32 unless `param_dtype` says so.
"""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk

    def forward(x):
        return hk.Linear(7)(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    return nn.Dense(7)


def nnx(rngs):
    from flax import nnx

    return nnx.Linear(3, 7, rngs=rngs)


CASE = Case(
    guide="API references: hk.Linear, nn.Dense, nnx.Linear",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,3]"},
    layers=(linear("linear", haiku="linear", linen="", nnx=""),),
)
