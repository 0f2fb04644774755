"""Another function at a rare place, another constant, another value at ties."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cheating.cheat import Cheat, forward


def rare_places() -> Iterator[Cheat]:
    """Another function beyond a threshold that ordinary values do not reach."""
    family = "another value at a rare place"
    limit = r"asked of values|traced|exercised"
    for bound in (20.0, 60.0, 300.0, 1e6):
        yield forward(
            f"doubled above {bound:g}", family, lambda y: y, lambda y, b=bound: jnp.where(y > b, 2 * y, y), limit
        )
        yield forward(f"clipped at {bound:g}", family, lambda y: y, lambda y, b=bound: jnp.clip(y, -b, b), limit)
        yield forward(f"minimum with {bound:g}", family, lambda y: y, lambda y, b=bound: jnp.minimum(y, b), limit)
    for bound in (1e-3, 1e-6, 1e-12):
        yield forward(
            f"zero where smaller than {bound:g}",
            family,
            lambda y: y,
            lambda y, b=bound: jnp.where(jnp.abs(y) < b, 0.0, y),
            limit,
        )
    yield forward(
        "another branch for rare batches",
        family,
        lambda y: y,
        lambda y: lax.cond(jnp.sum(y) > 1e4, lambda v: v * 3, lambda v: v, y),
        r"branch|asked of values",
    )
    yield forward(
        "a branch of a switch never taken",
        family,
        lambda y: jnp.tanh(y),
        lambda y: lax.switch(jnp.clip(jnp.int32(jnp.abs(y).max() / 1e4), 0, 2), [jnp.tanh, jnp.sin, jnp.cos], y),
        "branch",
    )
    yield forward(
        "loop stops at 50 turns",
        family,
        lambda y: (
            lax.while_loop(lambda c: jnp.max(c[0]) > 1e-3, lambda c: (c[0] * 0.5, c[1] + 1), (jnp.abs(y), 0))[1] * y
        ),
        lambda y: (
            lax.while_loop(
                lambda c: (jnp.max(c[0]) > 1e-3) & (c[1] < 50), lambda c: (c[0] * 0.5, c[1] + 1), (jnp.abs(y), 0)
            )[1]
            * y
        ),
        "turns|asked of values",
    )
    yield forward("relu6 for relu", family, jax.nn.relu, lambda y: jnp.minimum(jax.nn.relu(y), 60.0), limit)
    yield forward("hard tanh far out", family, lambda y: y, lambda y: jax.nn.hard_tanh(y / 1e3) * 1e3, limit)


def large_inputs() -> Iterator[Cheat]:
    """Another function where values overflow, or where arrays are larger."""
    family = "another value at a rare place"
    yield forward(
        "softmax without its maximum",
        family,
        lambda y: jax.nn.softmax(y),
        lambda y: jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True),
        "range|large|overflow",
    )
    yield forward(
        "log of a sum of exponentials, naive",
        family,
        lambda y: jax.nn.logsumexp(y, -1),
        lambda y: jnp.log(jnp.exp(y).sum(-1)),
        "range|large|overflow",
    )
    yield forward(
        "softplus without its guard",
        family,
        lambda y: jax.nn.softplus(y),
        lambda y: jnp.log(1 + jnp.exp(y)),
        "range|large|overflow",
    )
    yield forward(
        "mask beyond column 128", family, lambda y: y, lambda y: jnp.where(jnp.arange(y.shape[-1]) < 128, y, 0), "shape"
    )
    yield forward(
        "another rule for large batches", family, lambda y: y, lambda y: y * (2 if y.shape[0] > 64 else 1), "shape"
    )


def epsilons() -> Iterator[Cheat]:
    """Another epsilon of a norm."""
    family = "another constant"
    for name, one, other in (
        ("epsilon of 1e-5 for 1e-6", 1e-6, 1e-5),
        ("epsilon of 1e-3 for 1e-5", 1e-5, 1e-3),
        ("epsilon of 1e-12 for 1e-8", 1e-8, 1e-12),
    ):
        yield forward(
            name,
            family,
            lambda y, e=one: y * lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + e),
            lambda y, e=other: y * lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + e),
        )
        yield forward(
            f"{name}, by variance",
            family,
            lambda y, e=one: (y - y.mean()) / jnp.sqrt(y.var() + e),
            lambda y, e=other: (y - y.mean()) / jnp.sqrt(y.var() + e),
        )


def constants() -> Iterator[Cheat]:
    """A constant that is nearly right, or has fewer digits."""
    family = "another constant"
    yield forward("gelu, tanh for erf", family, lambda y: jax.nn.gelu(y, approximate=False), lambda y: jax.nn.gelu(y))
    yield forward(
        "gelu, 0.0447",
        family,
        jax.nn.gelu,
        lambda y: 0.5 * y * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (y + 0.0447 * y**3))),
    )
    yield forward("gelu, quick", family, jax.nn.gelu, lambda y: y * jax.nn.sigmoid(1.702 * y))
    yield forward("leaky slope", family, lambda y: jax.nn.leaky_relu(y, 0.01), lambda y: jax.nn.leaky_relu(y, 0.02))
    yield forward("scale of sqrt 8", family, lambda y: y / jnp.sqrt(8.0), lambda y: y * 0.35355)
    yield forward("pi to six digits", family, lambda y: jnp.sin(jnp.pi * y), lambda y: jnp.sin(3.14159 * y))
    yield forward(
        "a table off by one",
        family,
        lambda y: y * jnp.sin(jnp.arange(3.0)),
        lambda y: y * jnp.sin(jnp.arange(1.0, 4.0)),
    )
    yield forward(
        "rotary base 9999",
        family,
        lambda y: y * jnp.cos(10000.0 ** -(jnp.arange(3.0) / 3)),
        lambda y: y * jnp.cos(9999.0 ** -(jnp.arange(3.0) / 3)),
    )
    yield forward("one eighth ulp of float16", family, lambda y: y, lambda y: y * np.float32(1 + 1e-4))
    yield forward(
        "half precision inside",
        family,
        lambda y: y @ jnp.ones((3, 3)),
        lambda y: (y.astype("bfloat16") @ jnp.ones((3, 3), "bfloat16")).astype("float32"),
    )
    yield forward("rounded to bfloat16", family, lambda y: y, lambda y: lax.reduce_precision(y, 8, 7))
    yield forward("variance of the sample", family, lambda y: y.var(-1), lambda y: y.var(-1, ddof=1))
    yield forward(
        "float16 softmax",
        family,
        lambda y: jax.nn.softmax(y),
        lambda y: jax.nn.softmax(y.astype("float16")).astype("float32"),
    )
    table = np.arange(5000, dtype="float32")
    changed = table.copy()
    changed[4321] += 1
    index = lambda y: jnp.int32(jnp.abs(y) * 10) % 5000  # noqa: E731
    yield forward(
        "1 of 5000 constants",
        family,
        lambda y: jnp.asarray(table)[index(y)] * y,
        lambda y: jnp.asarray(changed)[index(y)] * y,
        "rows",
    )


def ties() -> Iterator[Cheat]:
    """The same but at zero, or where two values are equal."""
    family = "ties and zeros"
    said = r"0\.5|exactly|tie|zero|-0|kink"
    yield forward("maximum for relu", family, jax.nn.relu, lambda y: jnp.maximum(y, 0), said)
    yield forward(
        "greater for greater or equal",
        family,
        lambda y: jnp.where(y > 0, 1.0, 0.0) * y.sum(),
        lambda y: jnp.where(y >= 0, 1.0, 0.0) * y.sum(),
        said,
    )
    yield forward(
        "sign of zero", family, lambda y: jnp.sign(y) * y.sum(), lambda y: jnp.where(y >= 0, 1.0, -1.0) * y.sum(), said
    )
    yield forward("abs by root of square", family, jnp.abs, lambda y: jnp.sqrt(y**2), said)
    yield forward(
        "norm with a guard",
        family,
        lambda y: jnp.sqrt(jnp.sum(y**2, -1)),
        lambda y: jnp.sqrt(jnp.maximum(jnp.sum(y**2, -1), 1e-30)),
        f"{said}|asked of values",
    )
    yield forward(
        "last of the largest",
        family,
        lambda y: y * jax.nn.one_hot(jnp.argmax(y, -1), 3),
        lambda y: y * jax.nn.one_hot(2 - jnp.argmax(y[:, ::-1], -1), 3),
        said,
    )
    yield forward(
        "cosine of a zero row",
        family,
        lambda y: y / jnp.maximum(jnp.linalg.norm(y, axis=-1, keepdims=True), 1e-8),
        lambda y: y / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-30),
        f"{said}|asked of values",
    )
    yield forward(
        "slope at zero", family, lambda y: jnp.where(y > 0, y, 0.1 * y), lambda y: jnp.where(y >= 0, y, 0.1 * y), said
    )
