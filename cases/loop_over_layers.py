"""A loop over layers, written out: each layer is traced and compiled anew, where a scan traces and compiles one.

The model of `scan_over_layers` with a Python loop in place of the scan, and both at growing depth.
"""

import scan_over_layers

from equiv.case import Case, Depths
from equiv.layers import linear


def haiku(num_layers=5):
    import haiku as hk
    import jax

    class Block(hk.Module):
        def __init__(self, features: int, name=None):
            super().__init__(name=name)
            self.features = features

        def __call__(self, x, training: bool):
            x = hk.Linear(self.features)(x)
            x = hk.dropout(hk.next_rng_key(), 0.5 if training else 0, x)
            x = jax.nn.relu(x)
            return x

    class MLP(hk.Module):
        def __init__(self, features: int, num_layers: int, name=None):
            super().__init__(name=name)
            self.features = features
            self.num_layers = num_layers

        def __call__(self, x, training: bool):
            for _ in range(self.num_layers):
                x = Block(self.features)(x, training)
            return x

    def forward(x, training: bool):
        return MLP(64, num_layers)(x, training)

    model = hk.transform(forward)

    return model


def linen(num_layers=5):
    import flax.linen as nn
    import jax

    class Block(nn.Module):
        features: int
        training: bool

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.features)(x)
            x = nn.Dropout(0.5)(x, deterministic=not self.training)
            x = jax.nn.relu(x)
            return x

    class MLP(nn.Module):
        features: int
        num_layers: int

        @nn.compact
        def __call__(self, x, training: bool):
            for _ in range(self.num_layers):
                x = Block(self.features, training)(x)
            return x

    model = MLP(64, num_layers)

    return model


def nnx(rngs, num_layers=5):
    import jax
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, input_dim, features, rngs):
            self.linear = nnx.Linear(input_dim, features, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: jax.Array):
            x = self.linear(x)
            x = self.dropout(x)
            x = jax.nn.relu(x)
            return x

    class MLP(nnx.Module):
        def __init__(self, features, num_layers, rngs):
            self.blocks = nnx.List([Block(features, features, rngs=rngs) for _ in range(num_layers)])

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = MLP(64, num_layers, rngs=rngs)

    return model


CASE = Case(
    guide='Migrating from Haiku to Flax (Haiku, Linen), (Haiku, NNX) and (Haiku, Linen, NNX), "Scan over layers": '
    "the loop that the scan replaces",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[6,64]"},
    methods={"__call__": ("x",)},
    layers=tuple(
        linear(
            f"blocks.{index}.linear",
            haiku=f"mlp/block{f'_{index}' if index else ''}/linear",
            linen=f"Block_{index}/Dense_0",
            nnx=f"blocks.{index}.linear",
        )
        for index in range(5)
    ),
    depths=Depths(
        unrolled={"haiku": haiku, "linen": linen, "nnx": nnx},
        scanned={"haiku": scan_over_layers.haiku, "linen": scan_over_layers.linen, "nnx": scan_over_layers.nnx},
    ),
)
