"""A model of layers: the names of its attributes are the paths of its parameters, with one `~` in Haiku.

Layers made in `__init__` (Haiku), `setup` (Linen) or `__init__` (NNX); train and eval mode is an argument of the
call in Haiku and Linen, `model.train()` in NNX. The guide has NNX only. The Haiku and Linen columns are ours.
"""

from equiv.case import Case, zero_debias
from equiv.layers import batch_norm, module


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    class Linear(hk.Module):
        def __init__(self, dout: int, name=None):
            super().__init__(name=name)
            self.dout = dout

        def __call__(self, x):
            w = hk.get_parameter("w", (x.shape[-1], self.dout), x.dtype, init=hk.initializers.RandomUniform(0.0, 1.0))
            b = hk.get_parameter("b", (self.dout,), x.dtype, init=jnp.zeros)
            return x @ w + b

    class MLP(hk.Module):
        def __init__(self, dmid: int, dout: int, name=None):
            super().__init__(name=name)
            self.linear1 = Linear(dmid, name="linear1")
            self.bn = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.99, name="bn")
            self.linear2 = Linear(dout, name="linear2")

        def __call__(self, x, training: bool):
            x = self.bn(self.linear1(x), is_training=training)
            x = jax.nn.gelu(hk.dropout(hk.next_rng_key(), 0.1 if training else 0, x))
            return self.linear2(x)

    def forward(x, training: bool):
        return MLP(16, 5)(x, training)

    return hk.transform_with_state(forward)


def linen():
    import flax.linen as nn

    class Linear(nn.Module):
        dout: int

        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.uniform(1.0), (x.shape[-1], self.dout), x.dtype)
            b = self.param("b", nn.initializers.zeros_init(), (self.dout,), x.dtype)
            return x @ w + b

    class MLP(nn.Module):
        dmid: int
        dout: int

        def setup(self):
            self.linear1 = Linear(self.dmid)
            self.dropout = nn.Dropout(rate=0.1)
            self.bn = nn.BatchNorm()
            self.linear2 = Linear(self.dout)

        def __call__(self, x, training: bool):
            x = self.bn(self.linear1(x), use_running_average=not training)
            x = nn.gelu(self.dropout(x, deterministic=not training))
            return self.linear2(x)

    return MLP(16, 5)


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

    class MLP(nnx.Module):
        def __init__(self, din: int, dmid: int, dout: int, *, rngs: nnx.Rngs):
            self.linear1 = Linear(din, dmid, rngs=rngs)
            self.dropout = nnx.Dropout(rate=0.1, rngs=rngs)
            self.bn = nnx.BatchNorm(dmid, rngs=rngs)
            self.linear2 = Linear(dmid, dout, rngs=rngs)

        def __call__(self, x: jax.Array):
            x = nnx.gelu(self.dropout(self.bn(self.linear1(x))))
            return self.linear2(x)

    return MLP(2, 16, 5, rngs=rngs)


CASE = Case(
    guide='Flax Basics (NNX), "Nested Modules"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[7,2]"},
    methods={"__call__": ("x",)},
    layers=(
        module("linear1", "w", "b", haiku="mlp/~/linear1", linen="linear1", nnx="linear1"),
        batch_norm("bn", haiku="mlp/~/bn", linen="bn", nnx="bn"),
        module("linear2", "w", "b", haiku="mlp/~/linear2", linen="linear2", nnx="linear2"),
    ),
    known_differences=zero_debias("bn", decay=0.99),
)
