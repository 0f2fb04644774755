"""A scan over layers: Haiku and Linen stack the parameters in the call, NNX builds the stack first and then scans it.

With dropout each layer needs a key of its own: Haiku splits it unasked, Linen when told, NNX when the stack is built.
"""

from equiv.case import Case, Deviation
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
            @hk.experimental.layer_stack(self.num_layers)
            def stack_block(x):
                return Block(self.features)(x, training)

            return stack_block(x)

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
        def __call__(self, x, _):
            x = nn.Dense(self.features)(x)
            x = nn.Dropout(0.5)(x, deterministic=not self.training)
            x = jax.nn.relu(x)
            return x, None

    class MLP(nn.Module):
        features: int
        num_layers: int

        @nn.compact
        def __call__(self, x, training: bool):
            ScanBlock = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                length=self.num_layers,
            )
            y, _ = ScanBlock(self.features, training)(x, None)
            return y

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
            @nnx.split_rngs(splits=num_layers)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def create_block(rngs: nnx.Rngs):
                return Block(features, features, rngs=rngs)

            self.blocks = create_block(rngs)
            self.num_layers = num_layers

        def __call__(self, x):
            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            def forward(x, model):
                x = model(x)
                return x

            return forward(x, self.blocks)

    model = MLP(64, num_layers, rngs=rngs)

    return model


CASE = Case(
    guide='Migrating from Haiku to Flax (Haiku, Linen), (Haiku, NNX) and (Haiku, Linen, NNX), "Scan over layers"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[6,64]"},
    methods={"__call__": ("x",)},
    layers=(
        linear(
            "blocks.linear",
            haiku="mlp/__layer_stack_no_per_layer/block/linear",
            linen="ScanBlock_0/Dense_0",
            nnx="blocks.linear",
        ),
    ),
    printed={
        "haiku": {
            "mlp/__layer_stack_no_per_layer/block/linear/b": (5, 64),
            "mlp/__layer_stack_no_per_layer/block/linear/w": (5, 64, 64),
        },
        "linen": {
            "ScanBlock_0/Dense_0/bias": (5, 64),
            "ScanBlock_0/Dense_0/kernel": (5, 64, 64),
        },
        "nnx": {
            "blocks.linear.bias": (5, 64),
            "blocks.linear.kernel": (5, 64, 64),
        },
    },
    deviations=(
        Deviation(
            backend="haiku",
            prints="`stack = hk.experimental.layer_stack(self.num_layers)` before `return stack_block(x)`",
            happens="a value that is never used: parameters and outputs (train and eval) are bit-identical without it",
            works="the line is left out",
            versions="dm-haiku 0.0.17",
            evidence='"Scan over layers" in all three guides',
        ),
        Deviation(
            backend="linen",
            prints="`nn.scan(Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=self.num_layers)`",
            happens="`apply(..., training=True, rngs={'dropout': key})` raises flax.errors.InvalidRngError: Dropout_0 "
            "needs PRNG for \"dropout\"; `init` and `training=False` pass, and with `rngs={'params': key}` the masks "
            "are silently drawn from the params stream",
            works="`split_rngs={'params': True, 'dropout': True}`",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guides (Haiku, Linen) and (Haiku, Linen, NNX), "Scan over layers"',
        ),
        Deviation(
            backend="nnx",
            prints="`@nnx.split_rngs(splits=self.num_layers)` above `@nnx.scan(...)` in `MLP.__call__`",
            happens="ValueError: fold_in accepts a single key, but was given a key array of shape (5,) != (). "
            "Use jax.vmap for batching. Raised in train and in eval mode: the stack already holds one key per layer",
            works="`@nnx.scan(...)` alone",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide (Haiku, NNX), "Scan over layers"',
        ),
        Deviation(
            backend="nnx",
            prints="`self.blocks = nnx.Scan.constructor(Block, length=num_layers)(input_dim, features, rngs=rngs)`, "
            "called as `self.blocks(x, None)`; parameters under `blocks.scan_module.linear`",
            happens="AttributeError: Module flax.nnx has no attribute 'Scan'",
            works="`nnx.split_rngs` and `nnx.vmap` to build, `nnx.scan` to run, as in the guide (Haiku, NNX); "
            "parameters under `blocks.linear`",
            versions="flax 0.12.8",
            evidence='guide (Haiku, Linen, NNX), "Scan over layers"',
        ),
    ),
)
