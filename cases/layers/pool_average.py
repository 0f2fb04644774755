"""Average pooling: padding does not count in Haiku, and does in Flax, unless it is told not to."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk

    def forward(x):
        x = hk.Linear(4)(x)
        return hk.avg_pool(x, window_shape=(1, 2, 3, 1), strides=(1, 2, 1, 1), padding="SAME")

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4)(x)
            return nn.avg_pool(x, (2, 3), strides=(2, 1), padding="SAME", count_include_pad=False)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linear = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            x = self.linear(x)
            return nnx.avg_pool(x, (2, 3), strides=(2, 1), padding="SAME", count_include_pad=False)

    return Model(rngs)


CASE = Case(
    guide="API references: hk.avg_pool, nn.avg_pool, nnx.avg_pool",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,8,3]"},
    layers=(linear("linear", haiku="linear", linen="Dense_0", nnx="linear"),),
)
