"""Models without a gradient: what they return is compared, and the scope says why nothing is differentiated."""

from collections.abc import Callable

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import equiv
from equiv.comparison.frozen.bundle import decode_bundle, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.layers import linear

FLOATS, TOKENS = {"x": "float32[2,4]"}, {"t": "int32[3]:6"}


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def compared(left, right, batch, **settings):
    """The verdict of two builders, their case, and its scope."""
    (case,) = equiv.compare(left, right, batch=batch, **settings).cases
    (found,) = case.verdicts.values()
    assert case.scope is not None
    return str(found), case, case.scope


def grades(case):
    return {one.check: one.grade for one in case.checks}


def notes(case):
    return [one.note for check in case.checks for one in check.findings]


class Chooser(nn.Module):
    """The best class of every row, and, with `scores`, the scores too."""

    scores: bool = False
    wave: Callable[..., jax.Array] = jnp.sin

    @nn.compact
    def __call__(self, x):
        scores = nn.Dense(5, name="d")(self.wave(x))
        return (jnp.argmax(scores, -1), scores) if self.scores else jnp.argmax(scores, -1)


def choosing(choose, scores=False):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.d = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            found = self.d(jnp.sin(x))
            return (choose(found, -1), found) if scores else choose(found, -1)

    return Model


@pytest.mark.parametrize(("choose", "expected"), [(jnp.argmax, "same"), (jnp.argmin, "different")])
def test_whole_numbers_have_no_gradient(choose, expected):
    verdict, case, scope = compared(Chooser, choosing(choose), FLOATS)
    assert verdict == expected
    assert scope.gradient_texts == ("linen, nnx: gradients do not apply: no output is a float",)
    assert set(grades(case)) == {"structure", "outputs"}
    assert "0 train steps" in scope.text


def test_a_float_beside_whole_numbers_has_its_gradient():
    verdict, case, scope = compared(lambda: Chooser(scores=True), choosing(jnp.argmax, True), FLOATS)
    assert verdict == "same"
    assert {"gradients", "train"} <= set(grades(case))
    assert not scope.no_gradients


def test_a_loss_may_make_floats_of_whole_numbers():
    verdict, case, scope = compared(Chooser, choosing(jnp.argmax), FLOATS, loss=lambda ids, _: (ids == 1).mean() * 1.0)
    assert not scope.no_gradients
    assert grades(case)["gradients"] == "proved"
    assert verdict == "same"


def looping(turns, act=jnp.tanh):
    """A dense layer, applied again and again by `hk.while_loop`, which gives its body random keys."""

    def call(x):
        layer = hk.Linear(4, name="d")
        x = layer(x)
        if hk.running_init():
            return x
        return hk.while_loop(lambda c: c[0] < turns, lambda c: (c[0] + 1, act(layer(c[1]))), (0, x))[1]

    return lambda: hk.transform(call)


class Looped(nnx.Module):
    """The same, by `nnx.while_loop`."""

    def __init__(self, rngs):
        self.d = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        def body(carry):
            layer, turn, x = carry
            return layer, turn + 1, jnp.tanh(layer(x))

        return nnx.while_loop(lambda carry: carry[1] < 3, body, (self.d, 0, self.d(x)))[2]


class Unrolled(nnx.Module):
    """The same, written out, so that it has a gradient."""

    def __init__(self, rngs):
        self.d = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        x = self.d(x)
        for _ in range(3):
            x = jnp.tanh(self.d(x))
        return x


def test_a_while_loop_has_no_gradient_and_tells_why():
    verdict, _, scope = compared(looping(3), Looped, FLOATS)
    assert verdict == "same"
    told = scope.gradient_texts
    assert len(told) == 2
    for text, port in zip(told, ("haiku", "nnx"), strict=True):
        start = f"{port}: gradients do not apply: jax cannot differentiate a `while_loop` backwards, at "
        assert text.startswith(f"{start}tests/backends/test_no_gradient.py:")


@pytest.mark.parametrize("wrong", [looping(4), looping(3, jnp.sin)], ids=["turns", "function"])
def test_another_while_loop_is_different(wrong):
    assert compared(wrong, Looped, FLOATS)[0] == "different"


def test_a_gradient_that_one_port_alone_has_is_a_difference():
    verdict, case, scope = compared(looping(3), Unrolled, FLOATS)
    assert verdict == "different"
    assert grades(case)["outputs"] in ("float64", "exact")  # how the compiler rounds decides
    assert grades(case)["gradients"] == "refuted"
    assert any(note.startswith("haiku has no such gradient: jax cannot differentiate a `while") for note in notes(case))
    assert "haiku: gradients do not apply" in scope.gradient_texts[0]


def test_by_proof_alone_a_missing_gradient_is_a_difference():
    layers = (linear("d", haiku="d", nnx="d"),)
    case = Case(guide="", models={"nnx": Unrolled, "haiku": looping(3)}, batch=FLOATS, layers=layers)
    found = run_case(LoadedCase("loops", "", case), options=RunOptions(prove_only=True))
    assert found.verdicts == {"haiku": "different"}


def test_a_frozen_reference_without_a_gradient_is_compared_with():
    layers = (linear("d", haiku="d", nnx="d"),)
    loaded = LoadedCase(
        "loops", "", Case(guide="", models={"haiku": looping(3), "nnx": Looped}, batch=FLOATS, layers=layers)
    )
    frozen = decode_bundle(encode_bundle(freeze_reference(loaded)), "bundle")
    found = run_case(loaded, options=RunOptions(against=frozen))
    assert found.verdicts == {"nnx": "same"}
    assert found.scope is not None
    assert {one.port for one in found.scope.no_gradients} == {"haiku", "nnx"}


def test_a_loop_behind_stop_gradient_leaves_a_gradient():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            size = jax.lax.while_loop(lambda size: size < 9, lambda size: size * 2 + 1, (x**2).sum())
            return nn.Dense(3, name="d")(x) * jax.lax.stop_gradient(size)

    verdict, case, scope = compared(Model, Model, FLOATS)
    assert (verdict, scope.no_gradients) == ("same", ())
    assert grades(case)["gradients"] == "proved"


def test_only_the_method_without_a_gradient_is_named():
    class Model(nn.Module):
        def setup(self):
            self.d = nn.Dense(5)

        def __call__(self, x):
            return self.d(x)

        def choose(self, x):
            return jnp.argmax(self.d(x), -1)

    verdict, case, scope = compared(Model, Model, FLOATS, methods={"__call__": ("x",), "choose": ("x",)})
    assert verdict == "same"
    assert scope.gradient_texts == ("old, new: no gradient choose: no output is a float",)
    assert {"gradients", "train"} <= set(grades(case))


def test_equal_whole_numbers_without_a_proof_are_no_equality():
    def rounded(approximate):
        return lambda: Chooser(wave=lambda x: jax.nn.gelu(x, approximate=approximate))

    verdict, case, _ = compared(rounded(True), rounded(False), FLOATS)
    assert (verdict, grades(case)["outputs"]) == ("inconclusive", "unidentifiable")
