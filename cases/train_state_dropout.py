"""TrainState: parameters and optimizer in one value; in NNX also the model's other variables, which the step puts back.

With dropout these are the layer's own key and its count of draws; Haiku and Linen are handed a key for each step.
"""

from equiv.case import Case, Deviation
from equiv.layers import linear


def haiku():
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
            x = hk.dropout(hk.next_rng_key(), 0.5 if training else 0, x)
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

    model = hk.transform(forward)

    def create(params):
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))

    @jax.jit
    def train_step(key, state, inputs, labels):
        def loss_fn(params):
            logits = state.apply_fn(params, key, inputs, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(state.params)
        state = state.apply_gradients(grads=grads)
        return state

    return model, train_step, create


def linen():
    import flax.linen as nn
    import jax
    import optax
    from flax.training import train_state

    class Block(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x, training: bool):
            x = nn.Dense(self.features)(x)
            x = nn.Dropout(0.5, deterministic=not training)(x)
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

    def create(params):
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))

    @jax.jit
    def train_step(key, state, inputs, labels):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, inputs, training=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(state.params)
        state = state.apply_gradients(grads=grads)
        return state

    return model, train_step, create


def nnx(rngs):
    import jax
    import optax
    from flax import nnx
    from flax.training import train_state

    class Block(nnx.Module):
        def __init__(self, in_features: int, out_features: int, rngs: nnx.Rngs):
            self.linear = nnx.Linear(in_features, out_features, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            x = self.linear(x)
            x = self.dropout(x)
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
        other_variables: nnx.State

    def create(model):
        graphdef, params, other_variables = nnx.split(model, nnx.Param, ...)
        return TrainState.create(
            apply_fn=graphdef.apply, params=params, other_variables=other_variables, tx=optax.adam(1e-3)
        )

    @jax.jit
    def train_step(state, inputs, labels):
        def loss_fn(params, other_variables):
            # the call counts its random draws in these variables: they must belong to the trace of jax.grad
            other_variables = jax.tree.map(lambda a: a, other_variables)
            logits, (_, new_state) = state.apply_fn(params, other_variables)(inputs)
            _, other_variables = nnx.split_state(new_state, nnx.Param, ...)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, other_variables

        grads, other_variables = jax.grad(loss_fn, has_aux=True)(state.params, state.other_variables)
        state = state.apply_gradients(grads=grads)
        state = state.replace(other_variables=other_variables)
        return state

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


CASE = Case(
    guide='Migrating from Haiku to Flax (Haiku, Linen, NNX), "Basic Example": TrainState',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"inputs": "float32[8,784]", "labels": "int32[8]:10"},
    methods={"__call__": ("inputs",)},
    loss=loss,
    layers=(
        linear("block.linear", haiku="model/block/linear", linen="Block_0/Dense_0", nnx="block.linear"),
        linear("linear", haiku="model/linear", linen="Dense_0", nnx="linear"),
    ),
    printed={
        "haiku": {
            "model/block/linear/b": (256,),
            "model/block/linear/w": (784, 256),
            "model/linear/b": (10,),
            "model/linear/w": (256, 10),
        },
        "linen": {
            "Block_0/Dense_0/bias": (256,),
            "Block_0/Dense_0/kernel": (784, 256),
            "Dense_0/bias": (10,),
            "Dense_0/kernel": (256, 10),
        },
        "nnx": {
            "block.linear.bias": (256,),
            "block.linear.kernel": (784, 256),
            "linear.bias": (10,),
            "linear.kernel": (256, 10),
        },
    },
    deviations=(
        Deviation(
            backend="nnx",
            prints="`logits, (graphdef, new_state) = state.apply_fn(params, other_variables)(inputs)` inside "
            "`jax.grad`; `new_state` is not used",
            happens="TraceContextError: Cannot mutate RngCount from a different trace level",
            works="`other_variables = jax.tree.map(lambda a: a, other_variables)` before the call; the new ones leave "
            "`jax.grad` through `has_aux` and enter the train state by `state.replace` (with the copy alone the count "
            "of draws stays 0, so that every step has the same mask)",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide (Haiku, Linen, NNX), "Basic Example"; run as printed, with and without `jax.jit`',
        ),
    ),
)
