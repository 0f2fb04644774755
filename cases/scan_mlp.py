"""Scan over a stack of whole MLPs: parameters, statistics and random draws of each layer on a leading axis.

The guide has NNX only. The Haiku and Linen columns are ours, and so is the class `Stack`.
"""

from equiv.case import Case, Deviation, zero_debias
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

    class Stack(hk.Module):
        def __call__(self, x, training: bool):
            stack_init = hk.running_init()

            def layer(x):
                # layer_stack's init makes each layer and then applies it, which must not update the fresh statistics
                applied_in_init = stack_init and not hk.running_init()
                return MLP(32, 10)(x, training and not applied_in_init)

            return hk.layer_stack(5)(layer)(x)

    def forward(x, training: bool):
        return Stack()(x, training)

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
        training: bool

        def setup(self):
            self.linear1 = Linear(self.dmid)
            self.dropout = nn.Dropout(rate=0.1)
            self.bn = nn.BatchNorm()
            self.linear2 = Linear(self.dout)

        def __call__(self, x, _):
            x = self.bn(self.linear1(x), use_running_average=not self.training)
            x = nn.gelu(self.dropout(x, deterministic=not self.training))
            return self.linear2(x), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x, training: bool):
            ScanMLP = nn.scan(
                MLP,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True, "dropout": True},
                length=5,
            )
            x, _ = ScanMLP(32, 10, training)(x, None)
            return x

    return Stack()


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

    @nnx.vmap(in_axes=0, out_axes=0)
    def create_model(key: jax.Array):
        return MLP(10, 32, 10, rngs=nnx.Rngs(key))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def forward(model: MLP, x):
        x = model(x)
        return x

    class Stack(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs):
            keys = jax.random.split(rngs(), 5)
            self.layers = create_model(keys)

        def __call__(self, x):
            return forward(self.layers, x)

    return Stack(rngs=rngs)


CASE = Case(
    guide='Flax Basics (NNX), "Scan over layers"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[7,10]"},
    methods={"__call__": ("x",)},
    layers=(
        module(
            "layers.linear1",
            "w",
            "b",
            haiku="stack/__layer_stack_no_per_layer/mlp/~/linear1",
            linen="ScanMLP_0/linear1",
            nnx="layers.linear1",
        ),
        batch_norm(
            "layers.bn",
            haiku="stack/__layer_stack_no_per_layer/mlp/~/bn",
            linen="ScanMLP_0/bn",
            nnx="layers.bn",
        ),
        module(
            "layers.linear2",
            "w",
            "b",
            haiku="stack/__layer_stack_no_per_layer/mlp/~/linear2",
            linen="ScanMLP_0/linear2",
            nnx="layers.linear2",
        ),
    ),
    known_differences=zero_debias("layers.bn", decay=0.99),
    deviations=(
        Deviation(
            backend="nnx",
            prints="`model = create_model(keys)`, called as `forward(model, x)`",
            happens="runs; but `model` is an MLP with stacked leaves, and its own call does not scan: `model(x)` gives "
            "ValueError: Incompatible shapes for broadcasting: shapes=[(5, 3, 32), (5, 32)]",
            works="a class `Stack` that holds `create_model(keys)` and calls `forward`",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide, "Scan over layers"',
        ),
        Deviation(
            backend="haiku",
            prints="no Haiku column; plainly `hk.layer_stack(5)(layer)(x)`, `layer` being `MLP(32, 10)(x, training)`",
            happens="runs, and stacks the state of `hk.BatchNorm`; but `init` also applies each layer and keeps its "
            "new state: the fresh `counter` is [1 1 1 1 1], not zeros, and the fresh `hidden` 0.01 * the statistics of "
            "the init batch, not 0",
            works="`training` is false in that call: there `hk.running_init()` is true outside `layer`, false inside",
            versions="dm-haiku 0.0.17, jax 0.10.2",
            evidence="haiku/_src/layer_stack.py: per_layer_init_fn returns the state of apply_fn, not of init_fn",
        ),
    ),
)
