"""Randomness: a key argument in Haiku, a named stream of keys in Linen, a stream the layer itself holds in NNX.

Training mode is an argument of the call in Haiku and Linen, and `model.train()` in NNX.
"""

from equiv.case import Case, Deviation
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax
    import optax

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

    @jax.jit
    def train_step(key, params, inputs, labels):
        def loss_fn(params):
            logits = model.apply(params, key, inputs, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params

    return model, train_step


def linen():
    import flax.linen as nn
    import jax
    import optax

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

    @jax.jit
    def train_step(key, params, inputs, labels):
        def loss_fn(params):
            logits = model.apply({"params": params}, inputs, training=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params

    return model, train_step


def nnx(rngs):
    import jax
    import optax
    from flax import nnx

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

    @nnx.jit
    def train_step(model, inputs, labels):
        def loss_fn(model):
            logits = model(inputs)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = nnx.grad(loss_fn)(model)
        _, params, rest = nnx.split(model, nnx.Param, ...)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        nnx.update(model, nnx.merge_state(params, rest))

    return model, train_step


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


CASE = Case(
    guide='Migrating from Haiku to Flax: (Haiku, Linen) "Basic Example", '
    '(Haiku, NNX) "Basic Module definition" to "Training step and compilation", '
    '(Haiku, Linen, NNX) "Basic Example"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"inputs": "float32[6,784]", "labels": "int32[6]:10"},
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
            backend="linen",
            prints="the parameters as `FrozenDict({Block_0: {Dense_0: ...}, ...})`",
            happens="`Model.init` returns a plain `dict`; paths and shapes are as printed",
            works="the same paths and shapes, in a `dict`",
            versions="flax 0.12.8",
            evidence='guides (Haiku, Linen) and (Haiku, Linen, NNX), "Basic Example"',
        ),
        Deviation(
            backend="nnx",
            prints="`assert model.linear.bias.value.shape == (10,)`",
            happens="the assertion holds, with a DeprecationWarning: '.value' access is now deprecated. "
            "For Variable[Array] instances use: variable[...]",
            works="`model.linear.bias[...]`, or `.shape` of the variable itself; `printed` asserts the shapes",
            versions="flax 0.12.8",
            evidence='guide (Haiku, NNX), "Variable creation"; guide (Haiku, Linen, NNX), "Basic Example"',
        ),
        Deviation(
            backend="nnx",
            prints="leaves of `nnx.split(model, nnx.Param, nnx.RngState)` as `VariableState(type=Param, value=...)`",
            happens="the leaves are `nnx.Param` themselves; `nnx.VariableState` is an alias of `nnx.Variable` "
            "and warns (DeprecationWarning: 'VariableState' was removed); paths and shapes are as printed",
            works="`Param(value=...)`, as a later edition of the guide (Haiku, NNX) prints it",
            versions="flax 0.12.8",
            evidence='guide (Haiku, Linen, NNX), "Basic Example"',
        ),
    ),
)
