"""LoRA: NNX replaces layers of a model that already exists; Haiku and Linen write the model anew with the other layer.

The guide has NNX only. The Haiku and Linen columns are ours.
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

    class LoraLinear(hk.Module):
        def __init__(self, dout: int, rank: int, name=None):
            super().__init__(name=name)
            self.linear = Linear(dout, name="linear")
            self.dout = dout
            self.rank = rank

        def __call__(self, x):
            A = hk.get_parameter("A", (x.shape[-1], self.rank), x.dtype, init=hk.initializers.RandomNormal(1.0))
            B = hk.get_parameter("B", (self.rank, self.dout), x.dtype, init=hk.initializers.RandomNormal(1.0))
            return self.linear(x) + x @ A @ B

    class MLP(hk.Module):
        def __init__(self, dmid: int, dout: int, name=None):
            super().__init__(name=name)
            self.linear1 = LoraLinear(dmid, 4, name="linear1")
            self.bn = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.99, name="bn")
            self.linear2 = LoraLinear(dout, 4, name="linear2")

        def __call__(self, x, training: bool):
            x = self.bn(self.linear1(x), is_training=training)
            x = jax.nn.gelu(hk.dropout(hk.next_rng_key(), 0.1 if training else 0, x))
            return self.linear2(x)

    def forward(x, training: bool):
        return MLP(32, 5)(x, training)

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

    class LoraLinear(nn.Module):
        dout: int
        rank: int

        @nn.compact
        def __call__(self, x):
            A = self.param("A", nn.initializers.normal(1.0), (x.shape[-1], self.rank), x.dtype)
            B = self.param("B", nn.initializers.normal(1.0), (self.rank, self.dout), x.dtype)
            return Linear(self.dout, name="linear")(x) + x @ A @ B

    class MLP(nn.Module):
        dmid: int
        dout: int

        def setup(self):
            self.linear1 = LoraLinear(self.dmid, 4)
            self.dropout = nn.Dropout(rate=0.1)
            self.bn = nn.BatchNorm()
            self.linear2 = LoraLinear(self.dout, 4)

        def __call__(self, x, training: bool):
            x = self.bn(self.linear1(x), use_running_average=not training)
            x = nn.gelu(self.dropout(x, deterministic=not training))
            return self.linear2(x)

    return MLP(32, 5)


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

    class LoraParam(nnx.Param):
        pass

    class LoraLinear(nnx.Module):
        def __init__(self, linear: Linear, rank: int, rngs: nnx.Rngs):
            self.linear = linear
            self.A = LoraParam(jax.random.normal(rngs(), (linear.din, rank)))
            self.B = LoraParam(jax.random.normal(rngs(), (rank, linear.dout)))

        def __call__(self, x: jax.Array):
            return self.linear(x) + x @ self.A @ self.B

    model = MLP(2, 32, 5, rngs=rngs)

    # model surgery
    model.linear1 = LoraLinear(model.linear1, 4, rngs=rngs)
    model.linear2 = LoraLinear(model.linear2, 4, rngs=rngs)

    return model


CASE = Case(
    guide='Flax Basics (NNX), "Model Surgery"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[7,2]"},
    methods={"__call__": ("x",)},
    layers=(
        module(
            "linear1.linear", "w", "b", haiku="mlp/~/linear1/~/linear", linen="linear1/linear", nnx="linear1.linear"
        ),
        module("linear1", "A", "B", haiku="mlp/~/linear1", linen="linear1", nnx="linear1"),
        batch_norm("bn", haiku="mlp/~/bn", linen="bn", nnx="bn"),
        module(
            "linear2.linear", "w", "b", haiku="mlp/~/linear2/~/linear", linen="linear2/linear", nnx="linear2.linear"
        ),
        module("linear2", "A", "B", haiku="mlp/~/linear2", linen="linear2", nnx="linear2"),
    ),
    known_differences=zero_debias("bn", decay=0.99),
)
