"""Dropout: no leaves but random state; the three libraries derive their keys each in its own way."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk

    def forward(x, training: bool):
        x = hk.Linear(6)(x)
        return hk.dropout(hk.next_rng_key(), 0.3 if training else 0.0, x)

    return hk.transform(forward)


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, training: bool):
            x = nn.Dense(6)(x)
            return nn.Dropout(0.3)(x, deterministic=not training)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linear = nnx.Linear(13, 6, rngs=rngs)
            self.dropout = nnx.Dropout(0.3, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.linear(x))

    return Model(rngs)


CASE = Case(
    guide="API references: hk.dropout, nn.Dropout, nnx.Dropout",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,13]"},
    layers=(linear("linear", haiku="linear", linen="Dense_0", nnx="linear"),),
)
