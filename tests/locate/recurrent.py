"""Four residual blocks and a recurrent layer, 16 layers, in Haiku and NNX; `Faulty` is the third block."""

import jax
import jax.numpy as jnp

from equiv.case import Case
from equiv.layers import layer_norm, linear

DEPTH, WIDTH = 4, 6


def haiku():
    import haiku as hk

    def forward(x):
        for n in range(DEPTH):
            y = hk.Linear(2 * WIDTH, name=f"b{n}_up")(x)
            y = jax.nn.relu(y)
            y = hk.Linear(WIDTH, name=f"b{n}_down")(y)
            x = hk.LayerNorm(-1, True, True, eps=1e-6, name=f"b{n}_norm")(x + y)
        gate, fresh = hk.Linear(WIDTH, name="gate"), hk.Linear(WIDTH, name="fresh")
        back = hk.Linear(WIDTH, name="back")

        def step(h, row):
            z = jax.nn.sigmoid(gate(row) + 1.0)
            new = jnp.tanh(fresh(row) + back(h))
            h = z * h + (1 - z) * new
            return h, h

        _, x = hk.scan(step, jnp.zeros((x.shape[0], WIDTH)), x.swapaxes(0, 1))
        x = x.swapaxes(0, 1).mean(axis=1)
        return jax.nn.log_softmax(hk.Linear(5, name="head")(x), axis=-1)

    return hk.without_apply_rng(hk.transform(forward))


def nnx(rngs):
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6, rngs=rngs)

        def __call__(self, x):
            y = self.up(x)
            y = jax.nn.relu(y)
            y = self.down(y)
            return self.norm(x + y)

    class Faulty(Block):
        pass

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([kind(rngs) for kind in (Block, Block, Faulty, Block)])
            self.gate, self.fresh, self.back = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(3))
            self.head = nnx.Linear(WIDTH, 5, rngs=rngs)

        def step(self, h, row):
            z = self.gate(row)
            z = jax.nn.sigmoid(z + 1.0)
            new = self.fresh(row) + self.back(h)
            new = jnp.tanh(new)
            h = z * h + (1 - z) * new
            return h, h

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            start = jnp.zeros((x.shape[0], WIDTH))
            x = x.swapaxes(0, 1)
            _, x = jax.lax.scan(self.step, start, x)
            x = x.swapaxes(0, 1).mean(axis=1)
            x = self.head(x)
            return jax.nn.log_softmax(x, axis=-1)

    return Model(rngs)


CASE = Case(
    guide="none",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[3,7,6]"},
    layers=(
        *(
            kind(f"blocks.{n}.{name}", haiku=f"b{n}_{name}", nnx=f"blocks.{n}.{name}")
            for n in range(DEPTH)
            for name, kind in {"up": linear, "down": linear, "norm": layer_norm}.items()
        ),
        *(linear(name, haiku=name, nnx=name) for name in ("gate", "fresh", "back", "head")),
    ),
    steps=1,
)
