"""The same function written otherwise: none of these ports may be called different."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cheating.cheat import IDS, ROWS, STEP_ROWS, TABLE, X, dense, random, tokens, trained

Function = Callable[..., Any]


@dataclass(frozen=True)
class Right:
    """A right port.

    Attributes:
        name: how it is written, in a few words.
        left: builder of the reference.
        right: builder of the port.
        batch: of the case.
        layers: of the case.
    """

    name: str
    left: Callable[..., Any]
    right: Callable[..., Any]
    batch: dict[str, str]
    layers: tuple[Any, ...] = ROWS


def forward(name: str, left: Function, right: Function) -> Right:
    """A function of what a layer gives, in two ways."""
    return Right(name, dense(left), dense(right), X)


def statistics() -> Iterator[Right]:
    """Means, variances and norms."""
    yield forward("mean as a sum", lambda y: y.mean(-1), lambda y: y.sum(-1) / y.shape[-1])
    yield forward("mean as a product", lambda y: y.mean(-1), lambda y: y @ jnp.full(3, 1 / 3))
    yield forward("variance in one pass", lambda y: y.var(-1), lambda y: (y**2).mean(-1) - y.mean(-1) ** 2)
    yield forward(
        "variance in one pass at mean 1e3",
        lambda y: (y + 1e3).var(-1),
        lambda y: ((y + 1e3) ** 2).mean(-1) - (y + 1e3).mean(-1) ** 2,
    )
    yield forward(
        "norm by rsqrt",
        lambda y: y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-6),
        lambda y: y * lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-6),
    )
    yield forward(
        "norm by power",
        lambda y: y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-6),
        lambda y: y * ((y**2).mean(-1, keepdims=True) + 1e-6) ** -0.5,
    )
    yield forward(
        "centred, then scaled",
        lambda y: jax.nn.standardize(y),
        lambda y: (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5),
    )
    yield forward("length of a vector", lambda y: jnp.linalg.norm(y, axis=-1), lambda y: jnp.sqrt((y * y).sum(-1)))
    yield forward(
        "length by einsum", lambda y: jnp.linalg.norm(y, axis=-1), lambda y: jnp.sqrt(jnp.einsum("bi,bi->b", y, y))
    )
    yield forward(
        "norm in groups",
        lambda y: y - y.mean(-1, keepdims=True),
        lambda y: (y.reshape(5, 1, 3) - y.reshape(5, 1, 3).mean(-1, keepdims=True)).reshape(5, 3),
    )


def activations() -> Iterator[Right]:
    """Functions of one value."""
    yield forward("sigmoid by hand", jax.nn.sigmoid, lambda y: 1 / (1 + jnp.exp(-y)))
    yield forward("sigmoid by tanh", jax.nn.sigmoid, lambda y: 0.5 * (1 + jnp.tanh(y / 2)))
    yield forward("silu by hand", jax.nn.silu, lambda y: y * jax.nn.sigmoid(y))
    yield forward("silu by division", jax.nn.silu, lambda y: y / (1 + jnp.exp(-y)))
    yield forward("tanh by sigmoid", jnp.tanh, lambda y: 2 * jax.nn.sigmoid(2 * y) - 1)
    yield forward(
        "gelu by tanh", jax.nn.gelu, lambda y: 0.5 * y * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    )
    yield forward(
        "gelu by erf", lambda y: jax.nn.gelu(y, approximate=False), lambda y: y * 0.5 * (1 + lax.erf(y / np.sqrt(2)))
    )
    yield forward(
        "gelu by normal cdf", lambda y: jax.nn.gelu(y, approximate=False), lambda y: y * jax.scipy.stats.norm.cdf(y)
    )
    yield forward("relu by where", jax.nn.relu, lambda y: jnp.where(y > 0, y, 0))
    yield forward("relu by mask", jax.nn.relu, lambda y: y * (y > 0))
    yield forward("leaky relu by where", lambda y: jax.nn.leaky_relu(y, 0.2), lambda y: jnp.where(y >= 0, y, 0.2 * y))
    yield forward("elu by where", jax.nn.elu, lambda y: jnp.where(y > 0, y, jnp.exp(jnp.minimum(y, 0)) - 1))
    yield forward("softplus by logaddexp", jax.nn.softplus, lambda y: jnp.logaddexp(y, 0.0))
    yield forward("log of sigmoid", jax.nn.log_sigmoid, lambda y: -jax.nn.softplus(-y))
    yield forward("hard tanh by clip", jax.nn.hard_tanh, lambda y: jnp.clip(y, -1, 1))
    yield forward("cube by power", lambda y: y**3, lambda y: y * y * y)
    yield forward("division by a constant", lambda y: y / 8, lambda y: y * 0.125)
    yield forward("division by three", lambda y: y / 3, lambda y: y * (1 / 3))
    yield forward("division by a root", lambda y: y / jnp.sqrt(8.0), lambda y: y * 8.0**-0.5)


def softmaxes() -> Iterator[Right]:
    """Softmax, masks and losses."""
    shifted = lambda y: jnp.exp(y - y.max(-1, keepdims=True))  # noqa: E731
    yield forward("softmax by hand", jax.nn.softmax, lambda y: shifted(y) / shifted(y).sum(-1, keepdims=True))
    yield forward("softmax by its logarithm", jax.nn.softmax, lambda y: jnp.exp(jax.nn.log_softmax(y)))
    yield forward("logarithm of softmax", jax.nn.log_softmax, lambda y: y - jax.nn.logsumexp(y, -1, keepdims=True))
    yield forward(
        "sum of exponentials", lambda y: jax.nn.logsumexp(y, -1), lambda y: y.max(-1) + jnp.log(shifted(y).sum(-1))
    )
    mask = jnp.array([True, True, False])
    yield forward(
        "mask by where and add",
        lambda y: jax.nn.softmax(jnp.where(mask, y, -1e30)),
        lambda y: jax.nn.softmax(y + jnp.where(mask, 0.0, -1e30)),
    )
    yield forward(
        "mask of -inf and finfo.min",
        lambda y: jax.nn.softmax(jnp.where(mask, y, -jnp.inf)),
        lambda y: jax.nn.softmax(jnp.where(mask, y, jnp.finfo("float32").min)),
    )
    yield forward("mask as a factor", lambda y: jnp.where(mask, y, 0), lambda y: y * mask)
    yield forward(
        "attention scaled before and after",
        lambda y: jax.nn.softmax((y / jnp.sqrt(8.0)) @ y.T) @ y,
        lambda y: jax.nn.softmax(y @ y.T * 8.0**-0.5) @ y,
    )
    labels = jnp.array([0, 1, 2, 0, 1])
    yield forward(
        "cross-entropy by one-hot",
        lambda y: optax.softmax_cross_entropy_with_integer_labels(y, labels),
        lambda y: -(jax.nn.one_hot(labels, 3) * jax.nn.log_softmax(y)).sum(-1),
    )
    yield forward(
        "cross-entropy by gather",
        lambda y: optax.softmax_cross_entropy_with_integer_labels(y, labels),
        lambda y: -jnp.take_along_axis(jax.nn.log_softmax(y), labels[:, None], 1)[:, 0],
    )


def shapes() -> Iterator[Right]:
    """Products, slices and loops."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)).astype("float32"))
    yield forward("einsum", lambda y: y @ w, lambda y: jnp.einsum("bi,io->bo", y, w))
    yield forward("product from the right", lambda y: y @ w, lambda y: (w.T @ y.T).T)
    yield forward("product by broadcasting", lambda y: y @ w, lambda y: (y[:, :, None] * w).sum(1))
    yield forward("vmap of rows", lambda y: y @ w, lambda y: jax.vmap(lambda row: row @ w)(y))
    yield forward("loop over rows", lambda y: y @ w, lambda y: jnp.stack([row @ w for row in y]))
    yield forward("map over rows", lambda y: y @ w, lambda y: lax.map(lambda row: row @ w, y))
    yield forward("halves of a product", lambda y: y @ w, lambda y: jnp.concatenate([y @ w[:, :2], y @ w[:, 2:]], -1))
    yield forward(
        "split and put together",
        lambda y: jnp.sin(y),
        lambda y: jnp.concatenate([jnp.sin(part) for part in jnp.split(y, 3, -1)], -1),
    )
    yield forward("turned and turned back", lambda y: jnp.cumsum(y, 0), lambda y: jnp.cumsum(y.T, 1).T)
    yield forward("sums so far by a product", lambda y: jnp.cumsum(y, 0), lambda y: jnp.tril(jnp.ones((5, 5))) @ y)
    yield forward(
        "scan unrolled",
        lambda y: lax.scan(lambda c, r: (jnp.tanh(c + r),) * 2, jnp.zeros(3), y)[1],
        lambda y: unrolled(y),
    )
    yield forward(
        "fori_loop unrolled",
        lambda y: lax.fori_loop(0, 4, lambda _, v: jnp.sin(v) + y, y),
        lambda y: jnp.sin(jnp.sin(jnp.sin(jnp.sin(y) + y) + y) + y) + y,
    )
    yield forward("checkpointed", lambda y: jnp.sin(jnp.sin(y)), jax.checkpoint(lambda y: jnp.sin(jnp.sin(y))))
    yield forward(
        "a convolution as a product",
        lambda y: y[:, 1:] * 2 - y[:, :-1],
        lambda y: jnp.stack([jnp.convolve(row, jnp.array([2.0, -1.0]), "valid") for row in y]),
    )
    yield forward(
        "padding and cutting",
        lambda y: jnp.pad(y, ((0, 0), (1, 0)))[:, :-1],
        lambda y: jnp.roll(y, 1, -1).at[:, 0].set(0),
    )
    yield forward("sorted by top_k", lambda y: jnp.sort(y, -1)[:, ::-1], lambda y: lax.top_k(y, 3)[0])


def unrolled(y: Any) -> Any:
    """A recurrence without a loop."""
    state, states = jnp.zeros(3), []
    for row in y:
        state = jnp.tanh(state + row)
        states.append(state)
    return jnp.stack(states)


def lookups_and_draws() -> Iterator[Right]:
    """Tables, and draws with the key of a call."""
    for name, right in (
        ("lookup by take", lambda table, ids: jnp.take(table, ids, axis=0)),
        ("lookup by one-hot", lambda table, ids: jax.nn.one_hot(ids, 50) @ table),
        ("lookup of a flat list", lambda table, ids: table[ids.reshape(-1)].reshape(2, 6, 4)),
        ("lookup in a loop", lambda table, ids: jnp.stack([table[row] for row in ids])),
    ):
        yield Right(name, tokens(lambda table, ids: table[ids]), tokens(right), IDS, TABLE)
    for name, left, right in (
        (
            "dropout by where",
            lambda y, k: y * jax.random.bernoulli(k, 0.5, y.shape) / 0.5,
            lambda y, k: jnp.where(jax.random.bernoulli(k, 0.5, y.shape), y / 0.5, 0),
        ),
        (
            "noise by mean and scale",
            lambda y, k: y + 0.1 * jax.random.normal(k, y.shape),
            lambda y, k: 0.1 * (jax.random.normal(k, y.shape) + y / 0.1),
        ),
        ("a draw that nothing uses", lambda y, k: y, lambda y, k: (jax.random.normal(k, (3,)), y)[1]),
        (
            "uniform between bounds",
            lambda y, k: y * jax.random.uniform(k, y.shape, minval=-1),
            lambda y, k: y * (2 * jax.random.uniform(k, y.shape) - 1),
        ),
    ):
        yield Right(name, random(left), random(right), X)


def trainings() -> Iterator[Right]:
    """Optimizers written otherwise."""
    for name, left, right in (
        ("sgd as a chain", lambda: optax.sgd(0.1), lambda: optax.chain(optax.identity(), optax.scale(-0.1))),
        ("momentum as a trace", lambda: optax.sgd(0.1, 0.9), lambda: optax.chain(optax.trace(0.9), optax.scale(-0.1))),
        ("adam as a chain", lambda: optax.adam(0.01), lambda: optax.chain(optax.scale_by_adam(), optax.scale(-0.01))),
        (
            "adamw as a chain",
            lambda: optax.adamw(0.01, weight_decay=0.1),
            lambda: optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.01)),
        ),
        ("a constant schedule", lambda: optax.sgd(0.1), lambda: optax.sgd(optax.constant_schedule(0.1))),
        (
            "cosine by hand",
            lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
            lambda: optax.sgd(lambda n: 0.05 * (1 + jnp.cos(jnp.pi * jnp.minimum(n, 100) / 100))),
        ),
    ):
        yield Right(name, trained(left), trained(right), X, STEP_ROWS)


def all_right() -> list[Right]:
    """Every right port."""
    families = (statistics, activations, softmaxes, shapes, lookups_and_draws, trainings)
    return [one for family in families for one in family()]
