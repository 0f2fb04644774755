"""GRU: Haiku resets the state before its matrix product, Flax after it: another function, so here is Haiku's cell.

Haiku's update gate is the share of the new state, Flax's that of the old one. From a state of zeros one step is equal,
which is why a port to `GRUCell` can pass a quick look.
"""

from equiv.case import Case
from equiv.layers import module


def haiku():
    import haiku as hk

    def forward(x, hidden):
        y, _ = hk.dynamic_unroll(hk.GRU(4), x, hidden, time_major=False)
        return y

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class GRU(nn.Module):
        size: int

        @nn.compact
        def __call__(self, hidden, x):
            w_i = self.param("w_i", nn.initializers.lecun_normal(), (x.shape[-1], 3 * self.size))
            w_h = self.param("w_h", nn.initializers.lecun_normal(), (self.size, 3 * self.size))
            b = self.param("b", nn.initializers.zeros_init(), (3 * self.size,))
            zr_x, a_x = jnp.split(x @ w_i, [2 * self.size], axis=-1)
            zr_h = hidden @ w_h[:, : 2 * self.size]
            z, r = jnp.split(jax.nn.sigmoid(zr_x + zr_h + b[: 2 * self.size]), 2, axis=-1)
            a = jnp.tanh(a_x + (r * hidden) @ w_h[:, 2 * self.size :] + b[2 * self.size :])
            hidden = (1 - z) * hidden + z * a
            return hidden, hidden

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, hidden):
            rnn = nn.scan(GRU, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
            _, y = rnn(4)(hidden, x)
            return y

    return Model()


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class GRU(nnx.Module):
        def __init__(self, inputs: int, size: int, rngs: nnx.Rngs):
            init = nnx.initializers.lecun_normal()
            self.size = size
            self.w_i = nnx.Param(init(rngs.params(), (inputs, 3 * size)))
            self.w_h = nnx.Param(init(rngs.params(), (size, 3 * size)))
            self.b = nnx.Param(jnp.zeros(3 * size))

        def __call__(self, hidden, x):
            w_i = self.w_i[...]
            w_h = self.w_h[...]
            b = self.b[...]
            zr_x, a_x = jnp.split(x @ w_i, [2 * self.size], axis=-1)
            zr_h = hidden @ w_h[:, : 2 * self.size]
            z, r = jnp.split(jax.nn.sigmoid(zr_x + zr_h + b[: 2 * self.size]), 2, axis=-1)
            a = jnp.tanh(a_x + (r * hidden) @ w_h[:, 2 * self.size :] + b[2 * self.size :])
            hidden = (1 - z) * hidden + z * a
            return hidden, hidden

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.cell = GRU(3, 4, rngs)

        def __call__(self, x, hidden):
            def step(hidden, cell, x):
                return cell(hidden, x)

            _, y = nnx.scan(step, in_axes=(nnx.Carry, None, 1), out_axes=(nnx.Carry, 1))(hidden, self.cell, x)
            return y

    return Model(rngs)


CASE = Case(
    guide="API reference: hk.GRU",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,3]", "hidden": "float32[5,4]"},
    layers=(module("gru", "w_i", "w_h", "b", haiku="gru", linen="ScanGRU_0", nnx="cell"),),
)
