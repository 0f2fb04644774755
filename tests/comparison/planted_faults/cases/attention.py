"""One block of causal attention, all of whose kernels are square."""

from equiv.case import Case
from equiv.layers import linear, parameter


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def forward(x):
        query, key, value = (hk.Linear(8, name=name)(x) for name in ("query", "key", "value"))
        scores = query @ key.swapaxes(1, 2) / jnp.sqrt(8.0)
        weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((5, 5))), scores, -1e30), axis=-1)
        x = x + hk.Linear(8, name="out")(weights @ value)
        scale, offset = (hk.get_parameter(name, [8], init=jnp.ones) for name in ("scale", "offset"))
        x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + offset
        return x / jax.lax.stop_gradient(jnp.linalg.norm(x, axis=-1, keepdims=True))

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            query, key, value = (nn.Dense(8, name=name)(x) for name in ("query", "key", "value"))
            score = query @ key.swapaxes(1, 2) / jnp.sqrt(8.0)
            weights = nn.softmax(jnp.where(jnp.tril(jnp.ones((5, 5)), 0), score, -1e30), -1)
            y = x + nn.Dense(8, name="out")(weights @ value)
            scale = self.param("scale", nn.initializers.ones, [8])
            offset = self.param("offset", nn.initializers.ones, [8])
            y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True, ddof=0) + 1e-5)
            y = y * scale + offset
            return y / jax.lax.stop_gradient(jnp.linalg.norm(y, axis=-1, keepdims=True))

    return Attention()


CASE = Case(
    guide="none: one block of causal attention, all of whose kernels are square",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[3,5,8]"},
    layers=(
        linear("query", haiku="query", linen="query"),
        linear("key", haiku="key", linen="key"),
        linear("value", haiku="value", linen="value"),
        linear("out", haiku="out", linen="out"),
        parameter("scale", haiku="~/scale", linen="scale"),
        parameter("offset", haiku="~/offset", linen="offset"),
    ),
)
