"""Training with Adam: Haiku and Linen carry the optimizer's state beside the parameters, nnx.Optimizer keeps it inside.

The guide has NNX only. The Haiku and Linen columns are ours.
"""

from equiv.case import Case, Deviation, zero_debias
from equiv.layers import batch_norm, module


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import optax

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
        return MLP(16, 10)(x, training)

    model = hk.transform_with_state(forward)
    tx = optax.adam(1e-3)

    def create(params):
        return tx.init(params)

    @jax.jit
    def train_step(key, params, state, opt_state, x, y):
        def loss_fn(params):
            y_pred, new_state = model.apply(params, state, key, x, training=True)
            return jnp.mean((y_pred - y) ** 2), new_state

        (loss, new_state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)

        return params, new_state, opt_state, loss

    return model, train_step, create


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

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

    model = MLP(16, 10)
    tx = optax.adam(1e-3)

    def create(params):
        return tx.init(params)

    @jax.jit
    def train_step(key, params, batch_stats, opt_state, x, y):
        def loss_fn(params):
            y_pred, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                x,
                training=True,
                rngs={"dropout": key},
                mutable="batch_stats",
            )
            return jnp.mean((y_pred - y) ** 2), updates["batch_stats"]

        (loss, new_batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)

        return params, new_batch_stats, opt_state, loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
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

    model = MLP(2, 16, 10, rngs=rngs)

    def create(model):
        return nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit  # automatic state management
    def train_step(model, optimizer, x, y):
        def loss_fn(model: MLP):
            y_pred = model(x)
            return jnp.mean((y_pred - y) ** 2)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)  # in place

        return loss

    return model, train_step, create


def loss(outputs, batch):
    import jax.numpy as jnp

    return jnp.mean((outputs - batch["y"]) ** 2)


CASE = Case(
    guide='Flax Basics (NNX), "Transforms"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,2]", "y": "float32[5,10]"},
    methods={"__call__": ("x",)},
    loss=loss,
    layers=(
        module("linear1", "w", "b", haiku="mlp/~/linear1", linen="linear1", nnx="linear1"),
        batch_norm("bn", haiku="mlp/~/bn", linen="bn", nnx="bn"),
        module("linear2", "w", "b", haiku="mlp/~/linear2", linen="linear2", nnx="linear2"),
    ),
    known_differences=zero_debias("bn", decay=0.99),
    deviations=(
        Deviation(
            backend="nnx",
            prints="`optimizer = nnx.Optimizer(model, optax.adam(1e-3))`",
            happens="TypeError: Missing required argument `wrt`. As of Flax 0.11.0 the `wrt` argument is required",
            works="`nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)`",
            versions="flax 0.12.8, optax 0.2.8",
            evidence='guide, "Transforms"; run as printed',
        ),
        Deviation(
            backend="nnx",
            prints="`optimizer.update(grads)`",
            happens="TypeError: Missing required argument `grads`. As of Flax 0.11.0 update requires both "
            "(model, grads) arguments to be passed.",
            works="`optimizer.update(model, grads)`: the optimizer holds no reference to the model any more",
            versions="flax 0.12.8, optax 0.2.8",
            evidence='guide, "Transforms"; run as printed, with the first deviation mended',
        ),
    ),
)
