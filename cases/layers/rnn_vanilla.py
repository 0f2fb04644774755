"""Vanilla RNN: Haiku's activation is relu, that of Flax's simple cell tanh; equal with one bias.

`nnx.SimpleCell` computes in float32 whatever it is given, unless `dtype` says otherwise.
"""

from equiv.case import Case
from equiv.layers import vanilla_rnn


def haiku():
    import haiku as hk

    def forward(x, hidden):
        core = hk.VanillaRNN(4, double_bias=False)
        y, _ = hk.dynamic_unroll(core, x, hidden, time_major=False)
        return y

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, hidden):
            return nn.RNN(nn.SimpleCell(4, activation_fn=nn.relu))(x, initial_carry=hidden)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.rnn = nnx.RNN(nnx.SimpleCell(3, 4, activation_fn=nnx.relu, dtype=None, rngs=rngs))

        def __call__(self, x, hidden):
            return self.rnn(x, initial_carry=hidden)

    return Model(rngs)


CASE = Case(
    guide="API references: hk.VanillaRNN, nn.SimpleCell, nnx.SimpleCell",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,7,3]", "hidden": "float32[5,4]"},
    layers=(vanilla_rnn("rnn", haiku="vanilla_rnn", linen="SimpleCell_0", nnx="rnn.cell"),),
)
