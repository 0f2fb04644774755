"""An LSTM written out, whose gates have one shape."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def forward(x):
        linear = hk.Linear(24, name="linear")
        h = c = jnp.zeros((x.shape[0], 6))
        for step in range(x.shape[1]):
            i, g, f, o = jnp.split(linear(jnp.concatenate([x[:, step], h], axis=-1)), 4, axis=-1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h

    return hk.without_apply_rng(hk.transform(forward))


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class LSTM(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(10, 24, rngs=rngs)

        def __call__(self, x):
            hidden = cell = jnp.zeros((x.shape[0], 6))
            for step in range(x.shape[1]):
                i, g, forget, o = jnp.split(self.linear(jnp.concatenate([x[:, step], hidden], axis=-1)), 4, axis=-1)
                cell = jax.nn.sigmoid(forget + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
                hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return hidden

    return LSTM()


CASE = Case(
    guide="none: an LSTM written out, whose gates have one shape",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[3,3,4]"},
    layers=(linear("linear", haiku="linear", nnx="linear"),),
)
