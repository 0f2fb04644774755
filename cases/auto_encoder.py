"""Several public methods: `hk.multi_transform` in Haiku, `apply(..., method=...)` in Linen, plain calls in NNX."""

from equiv.case import Case, Deviation
from equiv.layers import linear


def haiku():
    import haiku as hk

    class AutoEncoder(hk.Module):
        def __init__(self, embed_dim: int, output_dim: int, name=None):
            super().__init__(name=name)
            self.encoder = hk.Linear(embed_dim, name="encoder")
            self.decoder = hk.Linear(output_dim, name="decoder")

        def encode(self, x):
            return self.encoder(x)

        def decode(self, x):
            return self.decoder(x)

        def __call__(self, x):
            x = self.encode(x)
            x = self.decode(x)
            return x

    def forward():
        module = AutoEncoder(256, 784)

        def init(x):
            return module(x)

        return init, (init, module.encode, module.decode)

    model = hk.multi_transform(forward)

    return model


def linen():
    import flax.linen as nn

    class AutoEncoder(nn.Module):
        embed_dim: int
        output_dim: int

        def setup(self):
            self.encoder = nn.Dense(self.embed_dim)
            self.decoder = nn.Dense(self.output_dim)

        def encode(self, x):
            return self.encoder(x)

        def decode(self, x):
            return self.decoder(x)

        def __call__(self, x):
            x = self.encode(x)
            x = self.decode(x)
            return x

    model = AutoEncoder(256, 784)

    return model


def nnx(rngs):
    from flax import nnx

    class AutoEncoder(nnx.Module):
        def __init__(self, in_dim: int, embed_dim: int, output_dim: int, rngs):
            self.encoder = nnx.Linear(in_dim, embed_dim, rngs=rngs)
            self.decoder = nnx.Linear(embed_dim, output_dim, rngs=rngs)

        def encode(self, x):
            return self.encoder(x)

        def decode(self, x):
            return self.decoder(x)

        def __call__(self, x):
            x = self.encode(x)
            x = self.decode(x)
            return x

    model = AutoEncoder(784, 256, 784, rngs=rngs)

    return model


def loss(outputs, batch):
    import jax.numpy as jnp

    return jnp.mean((outputs - batch["x"]) ** 2)


CASE = Case(
    guide='Migrating from Haiku to Flax: (Haiku, Linen) "Using Multiple Methods", '
    '(Haiku, NNX) "Using multiple methods", '
    '(Haiku, Linen, NNX) "Using Multiple Methods"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[6,784]", "z": "float32[6,256]"},
    methods={"__call__": ("x",), "encode": ("x",), "decode": ("z",)},
    loss=loss,
    layers=(
        linear("encoder", haiku="auto_encoder/~/encoder", linen="encoder", nnx="encoder"),
        linear("decoder", haiku="auto_encoder/~/decoder", linen="decoder", nnx="decoder"),
    ),
    printed={
        "haiku": {
            "auto_encoder/~/decoder/b": (784,),
            "auto_encoder/~/decoder/w": (256, 784),
            "auto_encoder/~/encoder/b": (256,),
            "auto_encoder/~/encoder/w": (784, 256),
        },
        "linen": {
            "decoder/bias": (784,),
            "decoder/kernel": (256, 784),
            "encoder/bias": (256,),
            "encoder/kernel": (784, 256),
        },
        "nnx": {
            "decoder.bias": (784,),
            "decoder.kernel": (256, 784),
            "encoder.bias": (256,),
            "encoder.kernel": (784, 256),
        },
    },
    deviations=(
        Deviation(
            backend="haiku",
            prints="`return init, (module.encode, module.decode)`",
            happens="`model.apply` is a tuple of those two functions: `__call__` runs in `init` but cannot be applied "
            "(`model.apply(params, None, x)`: TypeError: 'tuple' object is not callable)",
            works="`return init, (init, module.encode, module.decode)`: one function more, the parameters are the same",
            versions="dm-haiku 0.0.17",
            evidence='"Using Multiple Methods" in all three guides',
        ),
        Deviation(
            backend="nnx",
            prints="an `AutoEncoder` with `encode` and `decode` only",
            happens="TypeError: 'AutoEncoder' object is not callable",
            works="`__call__` as in the Haiku column and as the guide (Haiku, Linen, NNX) prints it",
            versions="flax 0.12.8",
            evidence='guide (Haiku, NNX), "Using multiple methods"',
        ),
    ),
)
