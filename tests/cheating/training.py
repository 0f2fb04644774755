"""Other optimizers, late schedules, and what hides from a tracer."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cheating.cheat import STEP_ROWS, Cheat, X, dense, forward, trained

MakeOptimizer = Callable[[], optax.GradientTransformation | optax.MultiSteps]


def step(name: str, left: MakeOptimizer, right: MakeOptimizer, says: str = "", **changes: Any) -> Cheat:
    """A cheat of training: what makes the optimizer of each port, and what the wrong one changes in its step."""
    return Cheat(name, "training", trained(left), trained(right, **changes), X, STEP_ROWS, says)


def sgd() -> optax.GradientTransformation:
    """The plainest optimizer."""
    return optax.sgd(0.1)


def optimizers() -> Iterator[Cheat]:
    """Other optimizers, and gradients that a step changes before it uses them."""
    yield step("rate 0.1 for 0.11", sgd, lambda: optax.sgd(0.11))
    yield step("momentum 0.9 for 0.95", lambda: optax.sgd(0.1, 0.9), lambda: optax.sgd(0.1, 0.95))
    yield step("nesterov", lambda: optax.sgd(0.1, 0.9), lambda: optax.sgd(0.1, 0.9, nesterov=True))
    yield step("adam for adamw", lambda: optax.adamw(0.01, weight_decay=0.01), lambda: optax.adam(0.01))
    yield step("adam epsilon 1e-8 for 1e-6", lambda: optax.adam(0.01, eps=1e-8), lambda: optax.adam(0.01, eps=1e-6))
    yield step(
        "adam epsilon in the root",
        lambda: optax.adam(0.01, eps=1e-8),
        lambda: optax.adam(0.01, eps=0, eps_root=1e-16),
        "exercised|epsilon|step",
    )
    yield step("beta2 0.999 for 0.99", lambda: optax.adam(0.01), lambda: optax.adam(0.01, b2=0.99))
    yield step("clipped by norm 1", sgd, lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)))
    yield step(
        "clipped by norm 1e3",
        sgd,
        lambda: optax.chain(optax.clip_by_global_norm(1e3), optax.sgd(0.1)),
        "asked of values|norm",
    )
    yield step(
        "decay before clipping",
        lambda: optax.chain(optax.clip(0.01), optax.add_decayed_weights(0.1), optax.sgd(0.1)),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.clip(0.01), optax.sgd(0.1)),
    )
    yield step("gradients of sums", sgd, sgd, change=lambda grads: jax.tree.map(lambda g: g * 2, grads))
    yield step(
        "bias not trained",
        sgd,
        sgd,
        change=lambda grads: {**grads, "layers_0": {**grads["layers_0"], "bias": grads["layers_0"]["bias"] * 0}},
    )


def schedules() -> Iterator[Cheat]:
    """Schedules that change later than the steps that are run."""
    late = r"counter|schedule|later step"
    for at in (6, 100, 1000, 100_000):
        yield step(
            f"rate changes at step {at}",
            lambda at=at: optax.sgd(optax.piecewise_constant_schedule(0.1, {at: 0.1})),
            lambda at=at: optax.sgd(optax.piecewise_constant_schedule(0.1, {at: 0.2})),
            late,
        )
        yield step(
            f"rate changes at step {at}, not constant",
            lambda at=at: optax.sgd(optax.piecewise_constant_schedule(0.1, {at: 0.1})),
            sgd,
            late,
        )
    yield step(
        "warm-up 1000 for 1001 steps, late peak",
        lambda: optax.sgd(optax.linear_schedule(0.1, 0.1, 1000)),
        lambda: optax.sgd(optax.join_schedules([optax.constant_schedule(0.1), optax.constant_schedule(0.01)], [1001])),
        late,
    )
    yield step(
        "cosine to 0 for 0.01",
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10_000, 0.0)),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10_000, 0.01)),
        late,
    )
    yield step("every 8 for 16 steps", lambda: optax.MultiSteps(sgd(), 8), lambda: optax.MultiSteps(sgd(), 16), late)


class Limit:
    """A host function with one text for every limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __repr__(self) -> str:
        return "Limit()"

    def __call__(self, y: Any) -> np.ndarray:
        return np.minimum(np.asarray(y), np.float32(self.limit))


def hidden() -> Iterator[Cheat]:
    """What hides from a tracer: host functions, caught errors, state of Python, patched libraries."""
    family = "hidden from the tracer"

    def host(limit):
        return lambda y: (
            y
            + lax.stop_gradient(
                jax.pure_callback(Limit(limit), jax.ShapeDtypeStruct(y.shape, y.dtype), lax.stop_gradient(y))
            )
        )

    yield forward(
        "two host functions of one text", family, host(50.0), host(1e9), "host|callback|asked of values|exercised"
    )
    yield forward("two host functions, near", family, host(0.5), host(1e9))

    def swallowed(y):
        try:
            return jax.nn.gelu(y, approximate="no such thing") if y.shape[0] == 5 else y  # pyright: ignore[reportArgumentType]
        except TypeError:
            return y

    yield forward("an error swallowed", family, lambda y: jax.nn.gelu(y, approximate=False), swallowed)

    calls = []

    def counting(y):
        calls.append(1)
        return y * (1 + len(calls) % 2)

    yield forward("another function at every trace", family, lambda y: y, counting, refused="not deterministic|another")

    def patching():
        jnp.tanh = jnp.sin
        return dense(lambda y: jnp.tanh(y))()

    yield Cheat("tanh replaced in jax.numpy", family, dense(lambda y: jnp.tanh(y)), patching, X)

    def setting():
        jax.config.update("jax_default_matmul_precision", "bfloat16")
        return dense(lambda y: y)()

    yield Cheat(
        "precision set for everything", family, dense(lambda y: y), setting, X, says="jax_default_matmul_precision"
    )

    yield forward("an output more", family, lambda y: y, lambda y: (y, y))
    yield forward("a transposed square output", family, lambda y: y[:3], lambda y: y[:3].T)
    yield forward("rows in another order", family, lambda y: y, lambda y: y[::-1])
    yield forward("a nan in one element", family, lambda y: y, lambda y: y.at[0, 0].set(jnp.nan))
    yield forward("nan for the whole", family, lambda y: y, lambda y: y * jnp.nan)
    yield forward("integers for floats", family, lambda y: y, lambda y: jnp.round(y * 1e6) / 1e6)
    yield forward("all zero", family, lambda y: y, lambda y: 0 * y)
    yield forward("mean of the batch", family, lambda y: y - y.mean(0), lambda y: y - y.mean())
    yield forward(
        "scan of one turn less",
        family,
        lambda y: lax.fori_loop(0, 8, lambda i, v: jnp.sin(v) + y, y),
        lambda y: lax.fori_loop(0, 7, lambda i, v: jnp.sin(v) + y, y),
    )
