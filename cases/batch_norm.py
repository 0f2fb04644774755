"""Running statistics: returned next to the output in Haiku and Linen, kept in the layer in NNX.

Haiku removes the zero bias of its averages, Flax does not: same training, other running statistics, so other
outputs in eval mode. Both guides' NNX steps keep the new statistics, because they split the model after its gradient.
"""

from equiv.case import Case, Deviation, zero_debias
from equiv.layers import batch_norm, linear


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

    @jax.jit
    def train_step(params, state, inputs, labels):
        def loss_fn(params):
            logits, new_state = model.apply(params, state, None, inputs, training=True)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, new_state

        grads, new_state = jax.grad(loss_fn, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params, new_state

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

    @jax.jit
    def train_step(params, batch_stats, inputs, labels):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updates = model.apply(variables, inputs, training=True, mutable="batch_stats")
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updates["batch_stats"]

        grads, new_batch_stats = jax.grad(loss_fn, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params, new_batch_stats

    return model, train_step


def nnx(rngs):
    import jax
    import optax
    from flax import nnx

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
    guide='Migrating from Haiku to Flax: (Haiku, Linen) "Handling State", '
    '(Haiku, NNX) "Handling non-parameter states", '
    '(Haiku, Linen, NNX) "Handling State"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"inputs": "float32[6,784]", "labels": "int32[6]:10"},
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
            prints="`model = Block(4, 4, rngs=nnx.Rngs(0))`, beside `Model(256, 10)` on 784 inputs in the Haiku column",
            happens="another model: it has no `block` (AttributeError: 'Block' object has no attribute 'block') and "
            "does not take the same batch (TypeError: dot_general requires contracting dimensions to have the same "
            "shape, got (784,) and (4,).)",
            works="`Model(784, 256, 10, rngs=rngs)` around that `Block`, as in the guide (Haiku, Linen, NNX)",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide (Haiku, NNX), "Handling non-parameter states"',
        ),
    ),
)
