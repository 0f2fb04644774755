"""Stacked layers: in all three libraries a leading axis of layers in front of every leaf."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    def forward(x):
        def block(x):
            return jnp.tanh(hk.Linear(6)(x))

        return hk.layer_stack(4)(block)(x)

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

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linear = nnx.Linear(6, 6, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.linear(x))

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            @nnx.split_rngs(splits=4)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def make(rngs: nnx.Rngs):
                return Block(rngs)

            self.blocks = make(rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            def run(x, block):
                return block(x)

            return run(x, self.blocks)

    return Model(rngs)


CASE = Case(
    guide="API references: hk.layer_stack, nn.scan, nnx.scan",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,6]"},
    layers=(
        linear(
            "blocks.linear",
            haiku="__layer_stack_no_per_layer/linear",
            linen="ScanBlock_0/Dense_0",
            nnx="blocks.linear",
        ),
    ),
)
