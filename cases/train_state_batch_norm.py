"""TrainState with running statistics: the same extra field in all three, filled from three kinds of call.

`apply_gradients` renews parameters and optimizer only; the step itself puts the new statistics back.
"""

from equiv.case import Case, Deviation, zero_debias
from equiv.layers import batch_norm, linear


def haiku():
    from typing import Any

    import haiku as hk
    import jax
    import optax
    from flax.training import train_state

    class Block(hk.Module):
        def __init__(self, features: int, name=None):
            super().__init__(name=name)
            self.features = features

        def __call__(self, x, training: bool):
            x = hk.Linear(self.features)(x)
            x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.99)(x, is_training=training)
            x = jax.nn.relu(x)
            return x

    class Model(hk.Module):
        def __init__(self, dmid: int, dout: int, name=None):
            super().__init__(name=name)
            self.dmid = dmid
            self.dout = dout

        def __call__(self, x, training: bool):
            x = Block(self.dmid)(x, training)
            x = hk.Linear(self.dout)(x)
            return x

    def forward(x, training: bool):
        return Model(256, 10)(x, training)

    model = hk.transform_with_state(forward)

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def create(params, batch_stats):
        return TrainState.create(apply_fn=model.apply, params=params, batch_stats=batch_stats, tx=optax.adam(1e-3))

    @jax.jit
    def train_step(state, inputs, labels):
        def loss_fn(params, batch_stats):
            logits, batch_stats = state.apply_fn(params, batch_stats, None, inputs, training=True)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, batch_stats

        grads, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params, state.batch_stats)
        state = state.apply_gradients(grads=grads)
        state = state.replace(batch_stats=batch_stats)
        return state

    return model, train_step, create


def linen():
    from typing import Any

    import flax.linen as nn
    import jax
    import optax
    from flax.training import train_state

    class Block(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x, training: bool):
            x = nn.Dense(self.features)(x)
            x = nn.BatchNorm(momentum=0.99)(x, use_running_average=not training)
            x = jax.nn.relu(x)
            return x

    class Model(nn.Module):
        dmid: int
        dout: int

        @nn.compact
        def __call__(self, x, training: bool):
            x = Block(self.dmid)(x, training)
            x = nn.Dense(self.dout)(x)
            return x

    model = Model(256, 10)

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def create(params, batch_stats):
        return TrainState.create(apply_fn=model.apply, params=params, batch_stats=batch_stats, tx=optax.adam(1e-3))

    @jax.jit
    def train_step(state, inputs, labels):
        def loss_fn(params, batch_stats):
            logits, updates = state.apply_fn(
                {"params": params, "batch_stats": batch_stats}, inputs, training=True, mutable="batch_stats"
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updates["batch_stats"]

        grads, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params, state.batch_stats)
        state = state.apply_gradients(grads=grads)
        state = state.replace(batch_stats=batch_stats)
        return state

    return model, train_step, create


def nnx(rngs):
    from typing import Any

    import jax
    import optax
    from flax import nnx
    from flax.training import train_state

    class Block(nnx.Module):
        def __init__(self, in_features: int, out_features: int, rngs: nnx.Rngs):
            self.linear = nnx.Linear(in_features, out_features, rngs=rngs)
            self.batchnorm = nnx.BatchNorm(num_features=out_features, momentum=0.99, rngs=rngs)

        def __call__(self, x):
            x = self.linear(x)
            x = self.batchnorm(x)
            x = jax.nn.relu(x)
            return x

    class Model(nnx.Module):
        def __init__(self, din: int, dmid: int, dout: int, rngs: nnx.Rngs):
            self.block = Block(din, dmid, rngs=rngs)
            self.linear = nnx.Linear(dmid, dout, rngs=rngs)

        def __call__(self, x):
            x = self.block(x)
            x = self.linear(x)
            return x

    model = Model(784, 256, 10, rngs=rngs)

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def create(model):
        graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return TrainState.create(apply_fn=graphdef.apply, params=params, batch_stats=batch_stats, tx=optax.adam(1e-3))

    @jax.jit
    def train_step(state, inputs, labels):
        def loss_fn(params, batch_stats):
            # the call writes the running statistics into these variables: they must belong to the trace of jax.grad
            batch_stats = jax.tree.map(lambda a: a, batch_stats)
            logits, (_, new_state) = state.apply_fn(params, batch_stats)(inputs)
            _, batch_stats = nnx.split_state(new_state, nnx.Param, nnx.BatchStat)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, batch_stats

        grads, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params, state.batch_stats)
        state = state.apply_gradients(grads=grads)
        state = state.replace(batch_stats=batch_stats)
        return state

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


CASE = Case(
    guide='Migrating from Haiku to Flax (Haiku, Linen, NNX), "Handling State": TrainState',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"inputs": "float32[8,784]", "labels": "int32[8]:10"},
    methods={"__call__": ("inputs",)},
    loss=loss,
    layers=(
        linear("block.linear", haiku="model/block/linear", linen="Block_0/Dense_0", nnx="block.linear"),
        batch_norm("block.norm", haiku="model/block/batch_norm", linen="Block_0/BatchNorm_0", nnx="block.batchnorm"),
        linear("linear", haiku="model/linear", linen="Dense_0", nnx="linear"),
    ),
    known_differences=zero_debias("block.norm", decay=0.99),
    deviations=(
        Deviation(
            backend="nnx",
            prints="`logits, (graphdef, new_state) = state.apply_fn(params, batch_stats)(inputs)` inside `jax.grad`",
            happens="TraceContextError: Cannot mutate BatchStat from a different trace level",
            works="`batch_stats = jax.tree.map(lambda a: a, batch_stats)` before the call",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide (Haiku, Linen, NNX), "Handling State"; run as printed, with and without `jax.jit`',
        ),
        Deviation(
            backend="nnx",
            prints="`_, batch_stats = new_state.split(nnx.Param, nnx.BatchStat)`",
            happens="DeprecationWarning: `flax.nnx.State` will be deprecated and be replaced by the built-in Python "
            "dict. Please use the equivalent `nnx.split_state` instead.",
            works="`_, batch_stats = nnx.split_state(new_state, nnx.Param, nnx.BatchStat)`",
            versions="flax 0.12.8",
            evidence='guide (Haiku, Linen, NNX), "Handling State"; run as printed, with the first deviation mended',
        ),
    ),
)
