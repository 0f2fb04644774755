"""LSTM: Haiku packs gates i, g, f, o of input and hidden state in one kernel, and adds 1 to f in its code.

Flax has a kernel for each gate in the order i, f, g, o, and no constant: the 1 is part of the bias of `hf`. Its carry
is (cell, hidden), and starts in float32 where it is not given.
"""

from equiv.case import Case
from equiv.layers import lstm


def haiku():
    import haiku as hk

    def forward(x, hidden, cell):
        state = hk.LSTMState(hidden, cell)
        y, state = hk.dynamic_unroll(hk.LSTM(4), x, state, time_major=False)
        return y, state.hidden, state.cell

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, hidden, cell):
            rnn = nn.RNN(nn.LSTMCell(4), return_carry=True)
            (cell, hidden), y = rnn(x, initial_carry=(cell, hidden))
            return y, hidden, cell

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.rnn = nnx.RNN(nnx.LSTMCell(3, 4, rngs=rngs), return_carry=True)

        def __call__(self, x, hidden, cell):
            (cell, hidden), y = self.rnn(x, initial_carry=(cell, hidden))
            return y, hidden, cell

    return Model(rngs)


CASE = Case(
    guide="API references: hk.LSTM, nn.LSTMCell, nnx.LSTMCell",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,3]", "hidden": "float32[5,4]", "cell": "float32[5,4]"},
    layers=(lstm("lstm", haiku="lstm", linen="LSTMCell_0", nnx="rnn.cell"),),
)
