"""Stacked in one library, written out in another: `scan/linear[2]` is the third layer of a stack."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    def forward(x):
        for index in range(4):
            x = jnp.tanh(hk.Linear(6, name=f"linear_{index}")(x))
        return x

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return jnp.tanh(nn.Dense(6)(x)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
            x, _ = stack()(x, None)
            return x

    return Model()


def nnx(rngs):
    import jax.numpy as jnp
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linears = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(4)])

        def __call__(self, x):
            for layer in self.linears:
                x = jnp.tanh(layer(x))
            return x

    return Model(rngs)


CASE = Case(
    guide="API references: hk.Linear, nn.scan, nnx.List",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,6]"},
    layers=tuple(
        linear(
            f"blocks.{index}",
            haiku=f"linear_{index}",
            linen=f"ScanBlock_0/Dense_0[{index}]",
            nnx=f"linears.{index}",
        )
        for index in range(4)
    ),
)
