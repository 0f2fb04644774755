"""Residual network of 17 layers with running averages, trained by AdamW: Haiku with its own batch norm, and Linen."""

import jax
import jax.numpy as jnp
import optax

from equiv.case import Case
from equiv.layers import linear, parameter, state

DEPTH, WIDTH, CLASSES = 3, 4, 5


def haiku():
    import haiku as hk

    class Norm(hk.Module):
        def __call__(self, x, training):
            scale, bias = (hk.get_parameter(leaf, (WIDTH,), init=jnp.ones) for leaf in ("scale", "bias"))
            old_mean, old_var = (hk.get_state(leaf, (WIDTH,), init=jnp.ones) for leaf in ("mean", "var"))
            mean, var = old_mean, old_var
            if training:
                mean = x.mean(axis=(0, 1, 2))
                var = x.var(axis=(0, 1, 2))
                hk.set_state("mean", 0.9 * old_mean + 0.1 * mean)
                hk.set_state("var", 0.9 * old_var + 0.1 * var)
            return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    class FaultyNorm(Norm):
        pass

    class Block(hk.Module):
        kind = Norm

        def __call__(self, x, training):
            y = hk.Conv2D(WIDTH, 3, with_bias=False, name="conv1")(x)
            y = self.kind(name="norm1")(y, training)
            y = jax.nn.relu(y)
            y = hk.Conv2D(WIDTH, 3, with_bias=False, name="conv2")(y)
            y = Norm(name="norm2")(y, training)
            y = x + y
            return jax.nn.relu(y)

    class Faulty(Block):
        kind = FaultyNorm

    def forward(x, training):
        x = Norm(name="norm")(hk.Conv2D(WIDTH, 3, with_bias=False, name="stem")(x), training)
        for n, kind in enumerate((Block, Faulty, Block)):
            x = kind(name=f"b{n}")(x, training)
        x = x.mean(axis=(1, 2))
        return hk.Linear(CLASSES, name="head")(x)

    model = hk.transform_with_state(forward)
    schedule = optax.exponential_decay(1e-2, transition_steps=10, decay_rate=0.5)
    tx = optax.chain(
        optax.clip_by_global_norm(0.25),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(1e-2, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.scale_by_learning_rate(schedule),
    )

    def train_step(params, state, opt_state, x, y):
        def loss_fn(params):
            logits, new_state = model.apply(params, state, None, x, training=True)
            targets = optax.smooth_labels(jax.nn.one_hot(y, CLASSES), 0.1)
            return optax.softmax_cross_entropy(logits, targets).mean(), new_state

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, loss

    return model, train_step, tx.init


def linen():
    import flax.linen as nn

    def norm(training, name):
        return nn.BatchNorm(use_running_average=not training, momentum=0.9, epsilon=1e-5, name=name)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            y = nn.Conv(WIDTH, (3, 3), use_bias=False, name="conv1")(x)
            y = nn.BatchNorm(use_running_average=not training, momentum=0.9, epsilon=1e-5, name="norm1")(y)
            y = jax.nn.relu(y)
            y = nn.Conv(WIDTH, (3, 3), use_bias=False, name="conv2")(y)
            y = norm(training, "norm2")(y)
            y = x + y
            return jax.nn.relu(y)

    class Faulty(Block):
        pass

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            x = nn.Conv(WIDTH, (3, 3), use_bias=False, name="stem")(x)
            x = norm(training, "norm")(x)
            for n, kind in enumerate((Block, Faulty, Block)):
                x = kind(name=f"b{n}")(x, training)
            x = x.mean(axis=(1, 2))
            return nn.Dense(CLASSES, name="head")(x)

    model = Model()
    schedule = optax.exponential_decay(1e-2, transition_steps=10, decay_rate=0.5)
    tx = optax.chain(
        optax.clip_by_global_norm(0.25),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(1e-2, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.scale_by_learning_rate(schedule),
    )

    def train_step(params, batch_stats, opt_state, x, y):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updates = model.apply(variables, x, training=True, mutable="batch_stats")
            targets = optax.smooth_labels(jax.nn.one_hot(y, CLASSES), 0.1)
            return optax.softmax_cross_entropy(logits, targets).mean(), updates["batch_stats"]

        (loss, new_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, opt_state, loss

    return model, train_step, tx.init


def loss(outputs, batch):
    targets = optax.smooth_labels(jax.nn.one_hot(batch["y"], CLASSES), 0.1)
    return optax.softmax_cross_entropy(outputs, targets).mean()


def norm_rows(canonical, own):
    params = (
        parameter(f"{canonical}/{leaf}", haiku=f"{own}/{leaf}", linen=f"{own}/{leaf}") for leaf in ("scale", "bias")
    )
    averages = (
        state(f"{canonical}/{leaf}", haiku=f"{own}/{leaf}", linen=f"batch_stats/{own}/{leaf}")
        for leaf in ("mean", "var")
    )
    return *params, *averages


def conv_row(canonical, own):
    return parameter(f"{canonical}/kernel", haiku=f"{own}/w", linen=f"{own}/kernel")


CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[3,5,5,4]", "y": "int32[3]:5"},
    methods={"__call__": ("x",)},
    loss=loss,
    layers=(
        conv_row("stem", "stem"),
        *norm_rows("norm", "norm"),
        *(conv_row(f"blocks.{n}.{name}", f"b{n}/{name}") for n in range(DEPTH) for name in ("conv1", "conv2")),
        *(
            row
            for n in range(DEPTH)
            for name in ("norm1", "norm2")
            for row in norm_rows(f"blocks.{n}.{name}", f"b{n}/{name}")
        ),
        linear("head", haiku="head", linen="head"),
    ),
    steps=2,
)
