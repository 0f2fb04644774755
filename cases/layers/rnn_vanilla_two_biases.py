"""Vanilla RNN with two biases, as Haiku has it: no cell of Flax's has both, so here is one of two dense layers.

Their sum is all that the output depends on, but each takes a step of its own: merged, the bias learns half as fast.
"""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk

    def forward(x, hidden):
        y, _ = hk.dynamic_unroll(hk.VanillaRNN(4), x, hidden, time_major=False)
        return y

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax

    class VanillaRNN(nn.Module):
        size: int

        @nn.compact
        def __call__(self, hidden, x):
            hidden = jax.nn.relu(nn.Dense(self.size, name="i")(x) + nn.Dense(self.size, name="h")(hidden))
            return hidden, hidden

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, hidden):
            rnn = nn.scan(VanillaRNN, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
            _, y = rnn(4)(hidden, x)
            return y

    return Model()


def nnx(rngs):
    import jax
    from flax import nnx

    class VanillaRNN(nnx.Module):
        def __init__(self, inputs: int, size: int, rngs: nnx.Rngs):
            self.i = nnx.Linear(inputs, size, rngs=rngs)
            self.h = nnx.Linear(size, size, rngs=rngs)

        def __call__(self, hidden, x):
            hidden = jax.nn.relu(self.i(x) + self.h(hidden))
            return hidden, hidden

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.cell = VanillaRNN(3, 4, rngs)

        def __call__(self, x, hidden):
            def step(hidden, cell, x):
                return cell(hidden, x)

            _, y = nnx.scan(step, in_axes=(nnx.Carry, None, 1), out_axes=(nnx.Carry, 1))(hidden, self.cell, x)
            return y

    return Model(rngs)


CASE = Case(
    guide="API reference: hk.VanillaRNN",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,3]", "hidden": "float32[5,4]"},
    layers=(
        linear("rnn.i", haiku="vanilla_rnn/linear", linen="ScanVanillaRNN_0/i", nnx="cell.i"),
        linear("rnn.h", haiku="vanilla_rnn/linear_1", linen="ScanVanillaRNN_0/h", nnx="cell.h"),
    ),
)
