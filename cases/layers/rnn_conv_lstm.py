"""Convolutional LSTM: the same cell in Haiku and Linen, with the 1 in its code; NNX ships none, so here is one."""

from equiv.case import Case
from equiv.layers import conv_lstm


def haiku():
    import haiku as hk

    def forward(x, hidden, cell):
        core = hk.Conv1DLSTM(input_shape=(6, 3), output_channels=2, kernel_shape=4)
        y, state = hk.dynamic_unroll(core, x, hk.LSTMState(hidden, cell), time_major=False)
        return y, state.hidden, state.cell

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, hidden, cell):
            rnn = nn.RNN(nn.ConvLSTMCell(2, kernel_size=(4,)), return_carry=True)
            (cell, hidden), y = rnn(x, initial_carry=(cell, hidden))
            return y, hidden, cell

    return Model()


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class ConvLSTMCell(nnx.Module):
        def __init__(self, inputs: int, features: int, rngs: nnx.Rngs):
            self.ih = nnx.Conv(inputs, 4 * features, kernel_size=(4,), rngs=rngs)
            self.hh = nnx.Conv(features, 4 * features, kernel_size=(4,), rngs=rngs)

        def __call__(self, carry, x):
            cell, hidden = carry
            i, g, f, o = jnp.split(self.ih(x) + self.hh(hidden), 4, axis=-1)
            cell = jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, hidden), hidden

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.cell = ConvLSTMCell(3, 2, rngs)

        def __call__(self, x, hidden, cell):
            def step(carry, module, x):
                return module(carry, x)

            scan = nnx.scan(step, in_axes=(nnx.Carry, None, 1), out_axes=(nnx.Carry, 1))
            (cell, hidden), y = scan((cell, hidden), self.cell, x)
            return y, hidden, cell

    return Model(rngs)


CASE = Case(
    guide="API references: hk.Conv1DLSTM, nn.ConvLSTMCell",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,6,3]", "hidden": "float32[5,6,2]", "cell": "float32[5,6,2]"},
    layers=(conv_lstm("lstm", haiku="conv1_dlstm", linen="ConvLSTMCell_0", nnx="cell"),),
)
