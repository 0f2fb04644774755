"""The way through two programs: it parts where a fault was planted, and not where one goes another way to the same."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from named import make_program

from equiv.comparison.explain.divergence import walk_values
from equiv.core.output_name import leaf_input
from equiv.core.results import Intermediate

GIVEN = {
    leaf_input("x"): np.random.default_rng(0).normal(size=(6, 8)).astype("float32"),
    leaf_input("w"): np.eye(8, dtype="float32") + 0.25,
}


def way(left: Callable, right: Callable) -> tuple[Intermediate, ...]:
    """Two functions of x and w, walked in float32."""
    programs = [
        make_program("f", jax.make_jaxpr(function)(*GIVEN.values()), ("x", "w"), ("output",))
        for function in (left, right)
    ]
    nudged = [{name: array * np.float32(1 + sign * 1.2e-7) for name, array in GIVEN.items()} for sign in (-1, 1)]
    return walk_values(programs[0], programs[1], (GIVEN, GIVEN), nudged)


def lost(left: Callable, right: Callable) -> list[str]:
    """The operations whose values are lost."""
    return [point.name for point in way(left, right) if point.lost]


def norm(x: jax.Array, w: jax.Array, eps: float = 1e-3) -> jax.Array:
    """Linear, normalised, bent."""
    y = x @ w
    mean = y.mean(0)
    inverse = jax.lax.rsqrt(((y - mean) ** 2).mean(0) + eps)
    return jnp.tanh((y - mean) * inverse)


def test_two_equal_programs_lose_nothing():
    """Every value is there, bit for bit."""
    points = way(norm, norm)
    assert [point.name for point in points][:1] == ["dot_general"]
    assert {(point.ratio, point.lost) for point in points} == {(0.0, False)}
    assert all(0 < point.floor < 1 for point in points)


def test_another_constant_is_lost_from_where_it_is_added():
    """Values that do not depend on it are not."""
    points = way(norm, lambda x, w: norm(x, w, 1e-1))
    names = [point.name for point in points]
    first = next(index for index, point in enumerate(points) if point.lost)
    assert names[first] == "add"
    assert [point.name for point in points if point.lost] == ["add", "rsqrt", "mul", "tanh"]
    assert points[first].location.file == "tests/comparison/explain/test_divergence.py"


def test_another_way_to_the_same_is_not_lost():
    """A value that the candidate does not have, but of which both make the same."""

    def other(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.tanh(((2 * x) @ w) * 0.5)

    points = way(lambda x, w: jnp.tanh(x @ w), other)
    assert [point.lost for point in points] == [False, False]
    back = way(other, lambda x, w: jnp.tanh(x @ w))
    assert [(point.name, point.ratio > 1, point.lost) for point in back] == [
        ("mul", True, False),
        ("dot_general", True, False),
        ("mul", False, False),
        ("tanh", False, False),
    ]


def test_what_parts_only_at_the_end_is_placed_there():
    """Everything before is equal."""
    assert [point.lost for point in way(norm, lambda x, w: norm(x, w) * 1.5)][-2:] == [False, False]
    assert [point.lost for point in way(lambda x, w: norm(x, w) * 1.5, norm)][-2:] == [False, True]


def test_a_detached_gradient_is_lost_on_the_way_back():
    """In the forward pass everything is equal."""

    def loss(x: jax.Array, w: jax.Array, stop: Callable = lambda value: value) -> jax.Array:
        return (jnp.tanh(stop(x @ w)) @ w).sum()

    left = jax.grad(loss, argnums=1)
    right = jax.grad(lambda x, w: loss(x, w, jax.lax.stop_gradient), argnums=1)
    points = way(left, right)
    assert [point.lost for point in points][:2] == [False, False]
    assert any(point.lost and "in the backward pass" in point.name for point in points)


def test_values_of_another_size_are_no_values_of_the_candidate():
    """And have no ratio."""
    points = way(lambda x, w: x @ w, lambda x, w: (x[:2] @ w).sum(0))
    assert [(point.ratio, point.lost) for point in points] == [(None, True)]


def test_a_long_program_is_described_up_to_a_limit(monkeypatch):
    """The first values: there it begins to differ."""
    monkeypatch.setattr("equiv.comparison.explain.divergence.MAX_VALUES", 3)
    assert len(way(norm, norm)) == 3
