"""A layer of one's own: parameters are asked for by name in Haiku and Linen, and are attributes in NNX.

The guide has NNX only. The Haiku and Linen columns are ours; they take `din` from the input.
"""

from equiv.case import Case
from equiv.layers import module


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    class Linear(hk.Module):
        def __init__(self, dout: int, name=None):
            super().__init__(name=name)
            self.dout = dout

        def __call__(self, x):
            w = hk.get_parameter("w", (x.shape[-1], self.dout), x.dtype, init=hk.initializers.RandomUniform(0.0, 1.0))
            b = hk.get_parameter("b", (self.dout,), x.dtype, init=jnp.zeros)
            return x @ w + b

    def forward(x):
        return Linear(5)(x)

    return hk.transform(forward)


def linen():
    import flax.linen as nn

    class Linear(nn.Module):
        dout: int

        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.uniform(1.0), (x.shape[-1], self.dout), x.dtype)
            b = self.param("b", nn.initializers.zeros_init(), (self.dout,), x.dtype)
            return x @ w + b

    return Linear(5)


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Linear(nnx.Module):
        def __init__(self, din: int, dout: int, *, rngs: nnx.Rngs):
            key = rngs.params()
            self.w = nnx.Param(jax.random.uniform(key, (din, dout)))
            self.b = nnx.Param(jnp.zeros((dout,)))
            self.din, self.dout = din, dout

        def __call__(self, x: jax.Array):
            return x @ self.w + self.b

    return Linear(2, 5, rngs=rngs)


CASE = Case(
    guide='Flax Basics (NNX), "The Module System"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[3,2]"},
    methods={"__call__": ("x",)},
    layers=(module("linear", "w", "b", haiku="linear", linen="", nnx=""),),
)
