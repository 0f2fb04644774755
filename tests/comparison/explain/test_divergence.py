"""Where two programs part by their values, which causes are tried there, and what no cause may be made of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explained_programs import model, norm, other, runs_of, scanned, search, tried
from flax import nnx

from equiv import compare
from equiv.comparison.explain.explanation import list_values
from equiv.comparison.explain.judge import Judge
from equiv.comparison.explain.recording import record_program
from equiv.comparison.explain.search import SearchResult, align_programs
from equiv.compat import enable_x64

FAULTS = {
    "epsilon": (model, other(eps=1e-5), "epsilon 0.001 in place of 1e-05"),
    "epsilon beside a harmless variance": (model, other(eps=1e-5, fast=True), "epsilon 0.001 in place of 1e-05"),
    "activation": (model, other(bend=jax.nn.relu), "tanh in place of relu"),
    "form of an activation": (
        other(bend=lambda x: jax.nn.gelu(x, approximate=False)),
        other(bend=jax.nn.gelu),
        "gelu in place of gelu (tanh approximation)",
    ),
    "activation left out": (model, other(bend=lambda x: x), "tanh, which nnx leaves out"),
    "axis": (
        other(bend=lambda x: jax.nn.softmax(x, -1)),
        other(bend=lambda x: jax.nn.softmax(x, 0)),
        "softmax over axis 1 in place of softmax over axis 0",
    ),
    "logarithm left out": (
        other(bend=lambda x: jax.nn.log_softmax(x, -1)),
        other(bend=lambda x: jax.nn.softmax(x, -1)),
        "log_softmax over axis 1 in place of softmax over axis 1",
    ),
    "residual left out": (
        model,
        lambda p: jnp.tanh(norm(p["batch/x"] @ p["a.w"] + p["a.b"])) @ p["b.w"] + p["b.b"],
        "the residual sum that nnx leaves out",
    ),
    "residual too many": (
        lambda p: jnp.tanh(norm(p["batch/x"] @ p["a.w"] + p["a.b"])) @ p["b.w"] + p["b.b"],
        model,
        "no residual sum",
    ),
    "bias left out": (
        model,
        lambda p: (p["batch/x"] + jnp.tanh(norm(p["batch/x"] @ p["a.w"] + p["a.b"]))) @ p["b.w"],
        "the sum with `b.b` that nnx leaves out",
    ),
    "transposed": (model, lambda p: model(p | {"a.w": p["a.w"].T}), "`a.w` transposed"),
    "flipped": (
        lambda p: model(p | {"a.w": p["a.w"][::-1]}),
        model,
        "`a.w` flipped along axis 0",
    ),
    "leaves exchanged": (
        model,
        lambda p: model(p | {"a.w": p["b.w"], "b.w": p["a.w"], "a.b": p["b.b"], "b.b": p["a.b"]}),
        "`b` and `a` exchanged",
    ),
    "a leaf used twice": (model, lambda p: model(p | {"a.w": p["b.w"]}), "`a.w` in place of `b.w` there"),
    "another layer called again": (
        lambda p: jnp.tanh(p["batch/x"] @ p["a.w"]) * (p["batch/x"] @ p["b.w"]),
        lambda p: jnp.tanh(p["batch/x"] @ p["a.w"]) * (p["batch/x"] @ p["a.w"]),
        "`b` in place of `a` there",
    ),
    "carry": (scanned, lambda p: scanned(p, 1.0), "an initial carry of 0 in place of 1"),
    "direction": (scanned, lambda p: scanned(p, reverse=True), "the loop over 4 steps in the other direction"),
    "position": (
        lambda p: model(p | {"batch/x": p["batch/x"] * jnp.arange(6.0)}),
        lambda p: model(p | {"batch/x": p["batch/x"] * (jnp.arange(6.0) + 1)}),
        "no add with 1",
    ),
    "scale": (model, lambda p: model(p | {"batch/x": p["batch/x"] * 0.5}), "no mul with 0.5"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_cause_of_each_kind_is_tried(kind: str):
    """And is among the first three that make both the same."""
    left, right, wanted = FAULTS[kind]
    assert wanted in tried(left, right)[:3]


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_tried_on_equal_programs_is_nothing(kind: str):
    """A program beside itself has no divergence, nor values that differ."""
    left, _, _ = FAULTS[kind]
    found = search(left, left)
    assert (found.divergences, found.alignment) == ((), None)


def test_a_harmless_way_is_no_divergence():
    """Another form of the variance is met again before the fault: neither place nor cause."""
    (one,) = search(model, other(eps=1e-5, fast=True)).divergences
    assert (one.scene.pair.reference.primitive, one.scene.pair.candidate.primitive) == ("add", "add")


def test_two_faults_are_both_found():
    """Each cause leaves an error, both together none."""
    found = tried(model, lambda p: model(p, eps=1e-5, bend=jax.nn.relu))
    assert {text.removesuffix(" (part)") for text in found} >= {
        "epsilon 0.001 in place of 1e-05",
        "tanh in place of relu",
    }


def test_no_cause_is_made_up_for_another_function():
    """What none of the known changes explains has a place, and no cause."""
    found = search(model, other(bend=lambda x: jnp.sinh(x) * jnp.cos(3 * x))).divergences
    assert found
    assert all(not one.causes for one in found)


def test_nan_is_no_explanation():
    """A change that makes NaN of everything is beyond every budget: roots of negative numbers."""
    runs = runs_of(model, other(eps=1e-5))
    with enable_x64(True):
        programs = runs.reference, runs_of(model, lambda p: jnp.sqrt(-1 - jnp.abs(model(p)))).candidate
        ours, broken = (record_program(program, runs.inputs[0][0], prints=False) for program in programs)
        before = record_program(runs.candidate, runs.inputs[0][1], prints=False)
        judge = Judge(runs, [ours], [ours], [before])
        assert np.isnan(broken.results[runs.refuted[0]]).all()
        assert not judge.is_within(broken, 0)
        assert judge.is_within(ours, 0)


def test_a_norm_moved_behind_a_residual_is_no_other_function():
    """It is no root in place of a square, though that would make NaN of all."""
    found = tried(
        lambda p: norm(p["batch/x"] + jnp.tanh(p["batch/x"] @ p["a.w"])) @ p["b.w"],
        lambda p: (p["batch/x"] + norm(jnp.tanh(p["batch/x"] @ p["a.w"]))) @ p["b.w"],
    )
    assert not any("sqrt" in text or "square" in text for text in found)


def test_a_mask_does_not_drown_what_is_before_it():
    """A huge number in an array hides no difference of the others."""

    def masked(p: dict, scale: float = 1.0) -> jax.Array:
        scores = scale * (p["batch/x"] @ p["a.w"])
        return jax.nn.softmax(jnp.where(jnp.tri(4, 6) > 0, scores, -1e9)) @ p["b.w"]

    (one,) = search(masked, lambda p: masked(p, 0.5)).divergences[:1]
    assert one.scene.pair.candidate.primitive == "mul"


def test_values_are_listed_around_the_divergence(monkeypatch: pytest.MonkeyPatch):
    """Those that differ for good are marked; a limit cuts what is far from them."""
    runs = runs_of(model, other(eps=1e-5))
    with enable_x64(True):
        alignment = align_programs(runs)
    points = list_values(alignment)
    first = next(index for index, point in enumerate(points) if point.lost)
    assert points[first].primitive == "add"
    assert points[first].location.file == "tests/explained_programs.py"
    assert all(point.ratio <= 1 for point in points[:first])
    assert all(point.ratio > 1 for point in points if point.lost)
    monkeypatch.setattr("equiv.comparison.explain.explanation.MAX_VALUES", 4)
    assert any(point.lost for point in list_values(alignment))
    assert len(list_values(alignment)) == 4


def test_a_detached_gradient_parts_on_the_way_back():
    """In the forward pass everything is equal."""

    def loss(p: dict, stop: Callable = lambda value: value) -> jax.Array:
        return (jnp.tanh(stop(p["batch/x"] @ p["a.w"])) @ p["b.w"]).sum()

    left = jax.grad(loss)
    right = jax.grad(lambda p: loss(p, jax.lax.stop_gradient))
    runs = runs_of(lambda p: left(p)["a.w"], lambda p: right(p)["a.w"])
    with enable_x64(True):
        points = list_values(align_programs(runs))
    assert not points[0].lost
    assert any(point.lost and "in the backward pass" in point.name for point in points)


def test_a_search_without_time_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("equiv.comparison.explain.search.MAX_SECONDS", -1.0)
    assert search(model, lambda p: model(p, eps=1e-5)).ended
    monkeypatch.setattr("equiv.comparison.explain.search.MAX_SECONDS", 120.0)
    assert not search(model, lambda p: model(p, eps=1e-5)).ended


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("MAX_EQUATIONS", 1, "more than"), ("find_divergences", "raises", "was not found: ValueError: odd")],
)
def test_why_no_place_is_found_is_said(name: str, value: object, said: str, monkeypatch: pytest.MonkeyPatch):
    """The verdict stays."""

    def odd(*_: object) -> SearchResult:
        raise ValueError("odd")

    monkeypatch.setattr(f"equiv.comparison.explain.divergence.{name}", odd if value == "raises" else value)
    run = compare(Right, Wrong, batch={"x": "float32[3,4]"}, checks=("outputs",))
    assert run.verdict == "different"
    assert any(said in remark for check in run.cases[0].checks for remark in check.remarks)


class Right(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.tanh(self.linear(x))


class Wrong(Right):
    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.sigmoid(self.linear(x))
