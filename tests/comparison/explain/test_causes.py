"""Which tried cause is named first where several explain the same, and causes in gradients, state and optimizers."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest
from explained_programs import model, norm, other, tried
from flax import nnx

from equiv import compare


def attend(p: dict, swapped: bool = False) -> jax.Array:
    """Masked attention, with queries and keys in each other's place."""
    q, k = p["batch/x"] @ p["a.w"], p["batch/x"] @ p["b.w"]
    scores = (k @ q.T) if swapped else (q @ k.T)
    return jax.nn.softmax(jnp.where(jnp.tri(4) > 0, scores, -1e9)) @ p["batch/x"]


def stacked(p: dict, eps: float = 1e-3) -> jax.Array:
    """Three norms by one line."""
    x = p["batch/x"]
    for leaf in ("a.w", "b.w", "a.w"):
        x = norm(jnp.tanh(x @ p[leaf]), eps)
    return x


def bent(p: dict, bend: Callable, last: Callable | None = None) -> jax.Array:
    """Two layers, of which one line applies the same function; and a last one on a line of its own."""
    x = p["batch/x"]
    for leaf in ("a.w", "b.w"):
        x = x + bend(x @ p[leaf])
    return (last or bend)(x @ p["a.w"])


def rough_gelu(x: jax.Array) -> jax.Array:
    """Its approximation."""
    return jax.nn.gelu(x)


def exact_gelu(x: jax.Array) -> jax.Array:
    """Itself."""
    return jax.nn.gelu(x, approximate=False)


def attended(
    p: dict, bend: Callable = jnp.tanh, residual: bool = True, scale: float | None = 0.4, gain: float | None = None
) -> jax.Array:
    """Two layers of attention."""
    x = p["batch/x"]
    for leaf in ("a.w", "b.w"):
        h = norm(x)
        scores = h @ p[leaf] @ h.T
        scores = scores if scale is None else scores * scale
        y = bend(jax.nn.softmax(scores) @ h @ p["b.w"])
        y = y if gain is None else y * gain
        x = x + y if residual else y
    return x


def gated(p: dict, flipped: bool = False) -> jax.Array:
    """A mean weighted by a gate."""
    z = jax.nn.sigmoid(p["batch/x"] @ p["a.w"])
    new = jnp.tanh(p["batch/x"] @ p["b.w"])
    old = p["batch/x"]
    return (1 - z) * old + z * new if flipped else z * old + (1 - z) * new


def skipped(p: dict, late: bool = True) -> jax.Array:
    """A residual around one step, or around both."""
    x = p["batch/x"]
    middle = x + jnp.tanh(x @ p["a.w"])
    return (middle if late else x) + jnp.sin(middle @ p["b.w"])


def stepped(p: dict, **settings: float) -> jax.Array:
    """One update of Adam."""
    tx = optax.chain(optax.clip_by_global_norm(settings.pop("most", 0.5)), optax.adam(0.1, **settings))
    grads = {"a": p["a.w"], "b": p["b.w"]}
    updates, _ = tx.update(grads, tx.init(grads))
    second, _ = tx.update(grads, tx.update(jax.tree.map(jnp.sin, grads), tx.init(grads))[1])
    return updates["a"] + second["b"]


def averaged(p: dict, keep: float = 0.9) -> jax.Array:
    """A running average, in both of its constants."""
    return jnp.cos(keep * p["a.w"] + (1 - keep) * (p["b.w"] @ p["b.w"]))


def spread(p: dict, ddof: int = 0) -> jax.Array:
    """A variance over the batch."""
    return p["batch/x"] / jnp.sqrt((p["batch/x"] @ p["a.w"]).var(axis=0, ddof=ddof) + 1e-3)


CASES = {
    "roles": (attend, lambda p: attend(p, swapped=True), "exchanged"),
    "places": (stacked, lambda p: stacked(p, 1e-5), "epsilon 0.001 in place of 1e-05 at 3 places"),
    "epsilon at one place": (model, other(eps=1e-5), "epsilon 0.001 in place of 1e-05"),
    "an activation in every layer": (
        lambda p: bent(p, rough_gelu, jnp.sin),
        lambda p: bent(p, exact_gelu, jnp.sin),
        "gelu (tanh approximation) in place of gelu at 2 places",
    ),
    "its exact form on several lines": (
        lambda p: bent(p, exact_gelu),
        lambda p: bent(p, rough_gelu),
        "gelu in place of gelu (tanh approximation) at 3 places",
    ),
    "another activation in every layer": (
        lambda p: bent(p, jax.nn.relu, jnp.sin),
        lambda p: bent(p, jax.nn.silu, jnp.sin),
        "relu in place of silu at 2 places",
    ),
    "an activation in one of several layers": (
        lambda p: bent(p, jnp.tanh),
        lambda p: bent(p, jnp.tanh, jax.nn.relu),
        "tanh in place of relu",
    ),
    "an activation left out in every layer": (
        attended,
        lambda p: attended(p, bend=lambda x: x),
        "tanh, which nnx leaves out",
    ),
    "a residual left out in every layer": (
        attended,
        lambda p: attended(p, residual=False),
        "the residual sum that nnx leaves out",
    ),
    "a residual too many in every layer": (lambda p: attended(p, residual=False), attended, "no residual sum"),
    "a scale left out in every layer": (
        attended,
        lambda p: attended(p, scale=None),
        "the mul with 0.4 that nnx leaves out",
    ),
    "a scale too many in every layer": (attended, lambda p: attended(p, gain=2.0), "no mul with 2"),
    "gates": (gated, lambda p: gated(p, flipped=True), "in place of"),
    "residual": (skipped, lambda p: skipped(p, late=False), "the sum of line"),
    "step left out": (
        lambda p: jnp.tanh(norm(p["batch/x"]) @ p["a.w"]),
        lambda p: jnp.tanh(p["batch/x"] @ p["a.w"]),
        "operations from line",
    ),
    "step too many": (
        lambda p: jnp.tanh(p["batch/x"] @ p["a.w"]),
        lambda p: jnp.tanh(norm(p["batch/x"]) @ p["a.w"]),
        "operations from line",
    ),
    "limits": (
        lambda p: jnp.clip(p["batch/x"] @ p["a.w"], -8.0, 8.0) @ p["b.w"],
        lambda p: jnp.clip(p["batch/x"] @ p["a.w"], -0.1, 0.1) @ p["b.w"],
        "the limits 8 in place of 0.1 at 2 places",
    ),
    "unbiased": (spread, lambda p: spread(p, 1), "the divisor 4 in place of 3"),
    "share": (averaged, lambda p: averaged(p, 0.99), "the momentum 0.9 in place of 0.99"),
    "b2": (stepped, lambda p: stepped(p, b2=0.9), "b2 0.999 in place of 0.9 in `tree_update_moment_per_elem_norm`"),
    "b1": (stepped, lambda p: stepped(p, b1=0.8), "b1 0.9 in place of 0.8 in `tree_update_moment`"),
    "clipping": (
        stepped,
        lambda p: stepped(p, most=0.7, eps=1e-8),
        "the clipping norm 0.5 in place of 0.7 in `clip_by_global_norm`",
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_smallest_usual_change_is_named_first(kind: str):
    """And explains everything, or its part of it."""
    left, right, wanted = CASES[kind]
    found = tried(left, right)
    assert found
    assert wanted in found[0]


def test_leaves_of_both_sides_are_not_exchanged_for_a_stride():
    """Leaves that both sides use near a divergence are not taken for each other before parameters are tried."""

    def pooled(p: dict, axis: int = 0) -> jax.Array:
        x = jnp.cumsum(p["batch/x"] @ p["a.w"], axis=axis)
        return jnp.tanh(x @ p["b.w"]) @ p["a.w"]

    (first, *_) = tried(pooled, lambda p: pooled(p, axis=1))
    assert first == "cumsum with axis 0 in place of 1"


class Free(nnx.Module):
    """Two layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def between(self, x: jax.Array) -> jax.Array:
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.between(nnx.tanh(self.first(x))))


class Held(Free):
    """The first of them without a gradient."""

    def between(self, x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x)


@pytest.mark.parametrize(
    ("ports", "text"),
    [((Free, Held), "no `stop_gradient`"), ((Held, Free), "the `stop_gradient` that .* leaves out")],
)
def test_what_one_port_holds_fixed_is_tried(ports: tuple[Callable, Callable], text: str):
    """In the gradient, since the outputs agree; by the line of the user."""
    run = compare(*ports, batch={"x": "float32[3,4]"}, checks=("outputs", "gradients"))
    assert run.verdict == "different"
    found = [one for check in run.cases[0].checks for item in check.findings for one in item.divergences]
    assert found
    assert found[0].program.is_gradient
    assert re.fullmatch(text, found[0].causes[0].text)
    assert all(site.user_line is not None and "test_causes" in site.user_line.file for site in found[0].sites)
