"""Convolutional VAE of 15 layers in Haiku and NNX; its noise is an input."""

from equiv.case import Case
from equiv.layers import conv, conv_transpose, group_norm, linear

WIDTH, CODE = 4, 3


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def damped(x):
        return x

    damped.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))

    def encode(x):
        for n, stride in enumerate((1, 2, 1, 2)):
            x = hk.Conv2D(WIDTH, 3, stride, name=f"conv{n}")(x)
            x = hk.GroupNorm(2, eps=1e-6, name=f"norm{n}")(x)
            x = jax.nn.silu(x)
        x = x.reshape(x.shape[0], -1)
        mean = hk.Linear(CODE, name="mean")(x)
        spread = hk.Linear(CODE, name="spread")(x)
        return mean, spread

    def decode(z):
        y = hk.Linear(4 * WIDTH, name="grow")(z)
        y = y.reshape(-1, 2, 2, WIDTH)
        y = hk.Conv2DTranspose(WIDTH, 3, 2, name="up0")(y)
        y = jax.nn.elu(y)
        y = hk.Conv2DTranspose(WIDTH, 3, 2, name="up1")(y)
        y = jax.nn.elu(y)
        y = hk.Conv2D(2, 3, name="last")(y)
        return jax.nn.sigmoid(y)

    def forward(x, noise):
        mean, spread = encode(x)
        spread = jnp.clip(spread, -8.0, 8.0)
        z = mean + jnp.exp(0.5 * spread) * noise
        z = damped(z)
        return {"image": decode(z), "mean": mean, "spread": spread}

    return hk.without_apply_rng(hk.transform(forward))


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    @jax.custom_vjp
    def damped(x):
        return x

    damped.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))

    class Model(nnx.Module):
        def __init__(self, rngs):
            sizes = (2, WIDTH, WIDTH, WIDTH)
            strides = (1, 2, 1, 2)
            self.convs = nnx.List(
                [nnx.Conv(size, WIDTH, (3, 3), stride, rngs=rngs) for size, stride in zip(sizes, strides, strict=True)]
            )
            self.norms = nnx.List([nnx.GroupNorm(WIDTH, 2, epsilon=1e-6, rngs=rngs) for _ in sizes])
            self.mean = nnx.Linear(4 * WIDTH, CODE, rngs=rngs)
            self.spread = nnx.Linear(4 * WIDTH, CODE, rngs=rngs)
            self.grow = nnx.Linear(CODE, 4 * WIDTH, rngs=rngs)
            self.up0 = nnx.ConvTranspose(WIDTH, WIDTH, (3, 3), (2, 2), rngs=rngs)
            self.up1 = nnx.ConvTranspose(WIDTH, WIDTH, (3, 3), (2, 2), rngs=rngs)
            self.last = nnx.Conv(WIDTH, 2, (3, 3), rngs=rngs)

        def encode(self, x):
            for layer, norm in zip(self.convs, self.norms, strict=True):
                x = layer(x)
                x = norm(x)
                x = jax.nn.silu(x)
            x = x.reshape(x.shape[0], -1)
            mean = self.mean(x)
            spread = self.spread(x)
            return mean, spread

        def decode(self, z):
            y = self.grow(z)
            y = y.reshape(-1, 2, 2, WIDTH)
            y = self.up0(y)
            y = jax.nn.elu(y)
            y = self.up1(y)
            y = jax.nn.elu(y)
            y = self.last(y)
            return jax.nn.sigmoid(y)

        def __call__(self, x, noise):
            mean, spread = self.encode(x)
            spread = jnp.clip(spread, -8.0, 8.0)
            z = mean + jnp.exp(0.5 * spread) * noise
            z = damped(z)
            return {"image": self.decode(z), "mean": mean, "spread": spread}

    return Model(rngs)


CASE = Case(
    guide="none",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[3,8,8,2]", "noise": "float32[3,3]"},
    layers=(
        *(conv(f"convs.{n}", haiku=f"conv{n}", nnx=f"convs.{n}") for n in range(4)),
        *(group_norm(f"norms.{n}", haiku=f"norm{n}", nnx=f"norms.{n}") for n in range(4)),
        *(linear(name, haiku=name, nnx=name) for name in ("mean", "spread", "grow")),
        *(conv_transpose(name, haiku=name, nnx=name) for name in ("up0", "up1")),
        conv("last", haiku="last", nnx="last"),
    ),
    steps=1,
)
