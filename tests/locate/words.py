"""LSTM language model of 20 layers, each gate with layers of its own, in Linen and NNX."""

from equiv.case import Case
from equiv.layers import embed, layer_norm, linear

WIDTH, WORDS = 5, 9


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class Cell(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            c, h = carry
            i = nn.Dense(WIDTH, name="xi")(x) + nn.Dense(WIDTH, name="hi")(h)
            f = nn.Dense(WIDTH, name="xf")(x) + nn.Dense(WIDTH, name="hf")(h)
            g = nn.Dense(WIDTH, name="xg")(x) + nn.Dense(WIDTH, name="hg")(h)
            o = nn.Dense(WIDTH, name="xo")(x) + nn.Dense(WIDTH, name="ho")(h)
            f = jax.nn.sigmoid(f + 1.0)
            i = jax.nn.sigmoid(i)
            o = jax.nn.sigmoid(o)
            g = jnp.tanh(g)
            c = f * c + i * g
            h = o * jnp.tanh(c)
            return (c, h), h

    class FaultyCell(Cell):
        pass

    class Model(nn.Module):
        @nn.compact
        def __call__(self, words):
            x = nn.Embed(WORDS, WIDTH, name="words")(words)
            for n, kind in enumerate((Cell, FaultyCell)):
                start = jnp.zeros((x.shape[0], WIDTH))
                loop = nn.scan(kind, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
                _, y = loop(name=f"cell{n}")((start, start), x)
                x = x + y
            x = nn.LayerNorm(epsilon=1e-6, name="norm")(x)
            return nn.Dense(WORDS, name="head")(x)

    model = Model()
    tx = optax.adam(1e-2, b1=0.9, b2=0.99, eps=1e-7)

    def create(params):
        return tx.init(params)

    @jax.jit
    def train_step(params, opt_state, words, targets):
        def loss_fn(params):
            logits = model.apply({"params": params}, words)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return losses.mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class Cell(nnx.Module):
        def __init__(self, rngs):
            for name in ("xi", "hi", "xf", "hf", "xg", "hg", "xo", "ho"):
                setattr(self, name, nnx.Linear(WIDTH, WIDTH, rngs=rngs))

        def __call__(self, carry, x):
            c, h = carry
            i = self.xi(x) + self.hi(h)
            f = self.xf(x) + self.hf(h)
            g = self.xg(x) + self.hg(h)
            o = self.xo(x) + self.ho(h)
            f = jax.nn.sigmoid(f + 1.0)
            i = jax.nn.sigmoid(i)
            o = jax.nn.sigmoid(o)
            g = jnp.tanh(g)
            c = f * c + i * g
            h = o * jnp.tanh(c)
            return (c, h), h

    class FaultyCell(Cell):
        pass

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
            self.cells = nnx.List([Cell(rngs), FaultyCell(rngs)])
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6, rngs=rngs)
            self.head = nnx.Linear(WIDTH, WORDS, rngs=rngs)

        def __call__(self, words):
            x = self.words(words)
            for cell in self.cells:
                start = jnp.zeros((x.shape[0], WIDTH))
                _, y = jax.lax.scan(cell, (start, start), x.swapaxes(0, 1))
                y = y.swapaxes(0, 1)
                x = x + y
            x = self.norm(x)
            return self.head(x)

    model = Model(rngs)

    def create(model):
        return nnx.Optimizer(model, optax.adam(1e-2, b1=0.9, b2=0.99, eps=1e-7), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, words, targets):
        def loss_fn(model):
            losses = optax.softmax_cross_entropy_with_integer_labels(model(words), targets)
            return losses.mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["targets"]).mean()


GATES = ("xi", "hi", "xf", "hf", "xg", "hg", "xo", "ho")
CASE = Case(
    guide="none",
    models={"linen": linen, "nnx": nnx},
    batch={"words": "int32[3,4]:9", "targets": "int32[3,4]:9"},
    methods={"__call__": ("words",)},
    loss=loss,
    layers=(
        embed("words", linen="words", nnx="words"),
        *(
            linear(f"cells.{n}.{name}", linen=f"cell{n}/{name}", nnx=f"cells.{n}.{name}")
            for n in range(2)
            for name in GATES
        ),
        layer_norm("norm", linen="norm", nnx="norm"),
        linear("head", linen="head", nnx="head"),
    ),
    steps=2,
)
