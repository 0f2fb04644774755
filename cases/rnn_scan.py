"""A scan over time: Haiku scans the first axis, Linen and NNX are told which axis to scan and what all steps share."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    class RNNCell(hk.Module):
        def __init__(self, hidden_size: int, name=None):
            super().__init__(name=name)
            self.hidden_size = hidden_size

        def __call__(self, carry, x):
            x = jnp.concatenate([carry, x], axis=-1)
            x = hk.Linear(self.hidden_size)(x)
            x = jax.nn.relu(x)
            return x, x

        def initial_state(self, batch_size: int):
            return jnp.zeros((batch_size, self.hidden_size))

    class RNN(hk.Module):
        def __init__(self, hidden_size: int, name=None):
            super().__init__(name=name)
            self.hidden_size = hidden_size

        def __call__(self, x):
            cell = RNNCell(self.hidden_size)
            carry = cell.initial_state(x.shape[0])
            carry, y = hk.scan(cell, carry, jnp.swapaxes(x, 1, 0))
            y = jnp.swapaxes(y, 0, 1)
            return y

    def forward(x):
        return RNN(64)(x)

    model = hk.without_apply_rng(hk.transform(forward))

    return model


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class RNNCell(nn.Module):
        hidden_size: int

        @nn.compact
        def __call__(self, carry, x):
            x = jnp.concatenate([carry, x], axis=-1)
            x = nn.Dense(self.hidden_size)(x)
            x = jax.nn.relu(x)
            return x, x

        def initial_state(self, batch_size: int):
            return jnp.zeros((batch_size, self.hidden_size))

    class RNN(nn.Module):
        hidden_size: int

        @nn.compact
        def __call__(self, x):
            rnn = nn.scan(RNNCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)(
                self.hidden_size
            )
            carry = rnn.initial_state(x.shape[0])
            carry, y = rnn(carry, x)
            return y

    model = RNN(64)

    return model


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class RNNCell(nnx.Module):
        def __init__(self, input_size, hidden_size, rngs):
            self.linear = nnx.Linear(hidden_size + input_size, hidden_size, rngs=rngs)
            self.hidden_size = hidden_size

        def __call__(self, carry, x):
            x = jnp.concatenate([carry, x], axis=-1)
            x = self.linear(x)
            x = jax.nn.relu(x)
            return x, x

        def initial_state(self, batch_size: int):
            return jnp.zeros((batch_size, self.hidden_size))

    class RNN(nnx.Module):
        def __init__(self, input_size: int, hidden_size: int, rngs: nnx.Rngs):
            self.hidden_size = hidden_size
            self.cell = RNNCell(input_size, self.hidden_size, rngs=rngs)

        def __call__(self, x):
            def scan_fn(carry, cell, x):
                return cell(carry, x)

            carry = self.cell.initial_state(x.shape[0])
            carry, y = nnx.scan(scan_fn, in_axes=(nnx.Carry, None, 1), out_axes=(nnx.Carry, 1))(carry, self.cell, x)
            return y

    model = RNN(32, 64, rngs=rngs)

    return model


CASE = Case(
    guide='Migrating from Haiku to Flax: (Haiku, Linen) "Lifted Transforms", '
    '(Haiku, NNX) "Transformations", '
    '(Haiku, Linen, NNX) "Lifted Transforms"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[3,12,32]"},
    methods={"__call__": ("x",)},
    layers=(linear("cell.linear", haiku="rnn/rnn_cell/linear", linen="ScanRNNCell_0/Dense_0", nnx="cell.linear"),),
)
