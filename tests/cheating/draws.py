"""Rows that no token reads, other keys and tails, other gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cheating.cheat import IDS, TABLE, Cheat, X, forward, random, tokens

Draw = Callable[[jax.Array, jax.Array], jax.Array]


def rows() -> Iterator[Cheat]:
    """Rows of a table that no token reads, and tokens out of its range."""
    family = "rows that are not read"

    def lookup(name, left, right, says="rows"):
        return Cheat(name, family, tokens(left), tokens(right), IDS, TABLE, says)

    take = lambda table, ids: table[ids]  # noqa: E731
    for row in (0, 25, 49):
        yield lookup(f"row {row} is zero", take, lambda t, i, row=row: t.at[row].set(0)[i])
        yield lookup(
            f"row {row} is doubled, by where",
            take,
            lambda t, i, row=row: t[i] * jnp.where(i == row, 2.0, 1.0)[..., None],
            "rows|asked of values|exercised",
        )
    yield lookup("the last ten rows", take, lambda t, i: t[jnp.minimum(i, 39)], "rows|asked of values")
    yield lookup("token 0 is padding", take, lambda t, i: t[i] * (i > 0)[..., None], "rows|asked of values|exercised")
    yield lookup(
        "clip for fill",
        lambda t, i: jnp.take(t, i + 45, axis=0, mode="clip"),
        lambda t, i: jnp.take(t, i + 45, axis=0, mode="wrap"),
        "rows",
    )


def drawn(name: str, left: Draw, right: Draw, says: str = "") -> Cheat:
    """A cheat whose model draws, from a function of an array and a key."""
    return Cheat(name, "randomness", random(left), random(right), X, says=says)


def normal(y: jax.Array, key: jax.Array) -> jax.Array:
    """Noise that multiplies."""
    return y * jax.random.normal(key, y.shape)


def keys() -> Iterator[Cheat]:
    """Another key, one key for two draws, or the bits of a draw used otherwise."""
    yield drawn(
        "another fixed key",
        lambda y, _: y * jax.random.normal(jax.random.key(1), y.shape),
        lambda y, _: y * jax.random.normal(jax.random.key(2), y.shape),
    )
    yield drawn("a fixed key for the call's", normal, lambda y, _: y * jax.random.normal(jax.random.key(0), y.shape))
    yield drawn(
        "one key twice",
        lambda y, key: y * jax.random.normal(key, (5, 3)) + jax.random.normal(jax.random.split(key)[0], (3,)),
        lambda y, key: y * jax.random.normal(key, (5, 3)) + jax.random.normal(key, (3,)),
    )
    yield drawn(
        "roll by -k",
        lambda y, key: jnp.roll(y, jax.random.randint(key, (), 0, 3), 1),
        lambda y, key: jnp.roll(y, -jax.random.randint(key, (), 0, 3), 1),
    )
    yield drawn(
        "one mask for all rows",
        lambda y, key: y * jax.random.bernoulli(key, 0.5, y.shape),
        lambda y, key: y * jax.random.bernoulli(key, 0.5, (1, 3)),
    )
    yield drawn("noise left out", lambda y, key: y + 0.01 * jax.random.normal(key, y.shape), lambda y, key: y)
    yield drawn(
        "permutation of other values",
        lambda y, key: jax.random.permutation(key, jnp.arange(3)) * y,
        lambda y, key: (2 - jax.random.permutation(key, jnp.arange(3))) * y,
    )
    yield drawn(
        "choice in another order",
        lambda y, key: jax.random.choice(key, jnp.arange(4.0), (3,)) * y,
        lambda y, key: jax.random.choice(key, jnp.arange(4.0)[::-1], (3,)) * y,
    )


def distributions() -> Iterator[Cheat]:
    """Another rate, scale, range or tail."""
    yield drawn(
        "keep 0.9 for 0.85",
        lambda y, key: y * jax.random.bernoulli(key, 0.9, y.shape),
        lambda y, key: y * jax.random.bernoulli(key, 0.85, y.shape),
    )
    yield drawn(
        "keep 0.9 for 0.9001",
        lambda y, key: y * jax.random.bernoulli(key, 0.9, y.shape),
        lambda y, key: y * jax.random.bernoulli(key, 0.9001, y.shape),
        "tail|draw|asked of values",
    )
    yield drawn(
        "scale not divided",
        lambda y, key: y * jax.random.bernoulli(key, 0.5, y.shape) / 0.5,
        lambda y, key: y * jax.random.bernoulli(key, 0.5, y.shape),
    )
    yield drawn(
        "normal clipped at 4",
        normal,
        lambda y, key: y * jnp.clip(jax.random.normal(key, y.shape), -4, 4),
        "tail|draw|asked of values",
    )
    yield drawn(
        "normal clipped at 2",
        normal,
        lambda y, key: y * jnp.clip(jax.random.normal(key, y.shape), -2, 2),
        "tail|draw|asked of values",
    )
    yield drawn(
        "uniform from 1e-6",
        lambda y, key: y * jnp.log(jax.random.uniform(key, y.shape, minval=1e-20)),
        lambda y, key: y * jnp.log(jax.random.uniform(key, y.shape, minval=1e-6)),
        "tail|draw|asked of values",
    )
    yield drawn("truncated for normal", normal, lambda y, key: y * jax.random.truncated_normal(key, -2, 2, y.shape))
    yield drawn(
        "randint to 15 for 16",
        lambda y, key: y * jax.random.randint(key, y.shape, 0, 16),
        lambda y, key: y * jax.random.randint(key, y.shape, 0, 15),
    )
    yield drawn(
        "three times a draw",
        lambda y, key: y * jax.random.randint(key, y.shape, 0, 16),
        lambda y, key: y * 3 * jax.random.randint(key, y.shape, 0, 16),
    )


def gradients() -> Iterator[Cheat]:
    """The same values with other gradients."""
    family = "gradients"
    stop = lax.stop_gradient
    yield forward("stop_gradient", family, lambda y: y * y.mean(), lambda y: y * stop(y.mean()))
    yield forward(
        "stop_gradient on half",
        family,
        jnp.sin,
        lambda y: jnp.concatenate([stop(jnp.sin(y[:, :1])), jnp.sin(y[:, 1:])], 1),
    )
    yield forward("straight through", family, lambda y: jnp.round(y) + y - stop(y), lambda y: jnp.round(y) + 0 * y)
    yield forward(
        "straight through, doubled",
        family,
        lambda y: y + stop(jnp.round(y) - y),
        lambda y: 2 * y + stop(jnp.round(y) - 2 * y),
    )

    def scaled(factor):
        @jax.custom_vjp
        def f(y):
            return jnp.sin(y)

        f.defvjp(lambda y: (jnp.sin(y), y), lambda y, g: (factor * g * jnp.cos(y),))
        return f

    yield forward("custom_vjp times 1.01", family, scaled(1.0), scaled(1.01))
    yield forward("custom_vjp clips at 100", family, jnp.sin, clipping(100.0), "asked of values|cotangent|exercised")
    yield forward("custom_jvp of another function", family, jnp.sin, another_jvp())
    yield forward("gradient reversal", family, lambda y: y, lambda y: 2 * stop(y) - y)


def clipping(bound: float) -> Callable[[Any], Any]:
    """The sine, with cotangents clipped."""

    @jax.custom_vjp
    def f(y):
        return jnp.sin(y)

    f.defvjp(lambda y: (jnp.sin(y), y), lambda y, g: (jnp.clip(g, -bound, bound) * jnp.cos(y),))
    return f


def another_jvp() -> Callable[[Any], Any]:
    """The sine, with a derivative of its own."""

    @jax.custom_jvp
    def f(y):
        return jnp.sin(y)

    f.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0] * jnp.cos(primals[0] * 1.001)))
    return f
