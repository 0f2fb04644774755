"""A leaf that one port has and the other lacks: the rest is compared, and told at which value both are the same."""

from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from helpers import just

import equiv
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import run_case
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.headline import verdict_words
from equiv.core.leaves import HeldValue
from equiv.errors import CaseError
from equiv.layers import batch_norm, linear, only

BATCH = {"x": "float32[4,6]"}
DENSE = (linear("d", linen="d", nnx="d"), linear("out", linen="out", nnx="out"))


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


class Linen(nn.Module):
    """Two layers; what is between them is given."""

    bias: bool = True
    gain: bool = False
    between: str = "relu"

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, use_bias=self.bias, name="d")(x)
        if self.gain:
            x = x * self.param("gain", nn.initializers.zeros, (5,))
        return nn.Dense(3, name="out")(getattr(jax.nn, self.between)(x))


class Nnx(nnx.Module):
    """The same two layers."""

    def __init__(self, rngs, bias=True, between="relu", **arrays):
        self.d, self.out = nnx.Linear(6, 5, use_bias=bias, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)
        self.between, self.buffers = between, nnx.data({name: nnx.BatchStat(array) for name, array in arrays.items()})

    def __call__(self, x):
        return self.out(getattr(jax.nn, self.between)(self.d(x)))


class LinenNorms(nn.Module):
    """A batch norm after a layer whose bias it takes out again in training."""

    bias: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(5, use_bias=self.bias, name="d")(x)
        return nn.BatchNorm(use_running_average=not train, name="bn")(x)


class NnxNorms(nnx.Module):
    def __init__(self, rngs):
        self.d, self.bn = nnx.Linear(6, 5, use_bias=False, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)

    def __call__(self, x):
        return self.bn(self.d(x))


class LayerNorm(nnx.Module):
    def __init__(self, rngs, use_scale):
        self.norm = nnx.LayerNorm(6, use_scale=use_scale, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


def gru(with_bias):
    """A step of a GRU from Haiku's parameters, with or without a bias of its own in the candidate state."""

    def step(x):
        def product(name, inputs, bias=True):
            return hk.Linear(6, with_bias=bias, name=name)(inputs)

        hidden = jnp.roll(x, 1, axis=-1)
        reset, update = jax.nn.sigmoid(product("reset", x)), jax.nn.sigmoid(product("update", x))
        new = jnp.tanh(product("new", x) + reset * product("hidden", hidden, with_bias))
        return (1 - update) * new + update * hidden

    return hk.transform(step)


def found(left, right, **options):
    """The only case of a comparison."""
    (case,) = equiv.compare(left, right, batch=BATCH, **options).cases
    return case


def scope_of(case):
    assert case.scope is not None
    return case.scope


def structure_notes(case):
    checks = [check for check in case.checks if check.check == "structure"]
    return [finding.note for check in checks for finding in check.findings if finding.grade == "refuted"]


def later_grades(case):
    return {check.check: check.grade for check in case.checks if check.check != "structure"}


EQUAL = {"proved", "proved modulo", "exact", "float64", "rounding"}


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("left", "right", "note"),
    [
        (lambda: Linen(), lambda rngs: Nnx(rngs, bias=False), "nnx has no counterpart of it; same where it is 0"),
        (lambda: Linen(bias=False), lambda rngs: Nnx(rngs), "linen has no counterpart of it; same where it is 0"),
        (lambda: Linen(gain=True), lambda rngs: Nnx(rngs), "nnx has no counterpart of it; same where it is 1"),
        (lambda: LinenNorms(), lambda rngs: NnxNorms(rngs), "nnx has no counterpart of it; same where it is 0"),
        (
            lambda rngs: LayerNorm(rngs, True),
            lambda rngs: LayerNorm(rngs, False),
            "right has no counterpart of it; same where it is 1",
        ),
        (lambda: gru(True), lambda: gru(False), "right has no counterpart of it; same where it is 0"),
        (
            lambda: Linen(),
            lambda rngs: Nnx(rngs, seen=jnp.ones(7)),
            "linen has no counterpart of it; no call depends on it; all the rest is the same",
        ),
    ],
    ids=["left", "right", "gain", "batch norm", "layer norm", "gru", "buffer"],
)
def test_the_value_is_told_where_both_are_the_same(left, right, note):
    case = found(left, right, names=("left", "right") if "right has" in note else None)
    assert list(case.verdicts.values()) == ["different"]
    assert structure_notes(case) == [note]
    assert set(later_grades(case).values()) <= EQUAL
    assert {"outputs", "gradients", "train"} <= set(later_grades(case))


def test_values_of_two_leaves_are_found_together():
    case = found(lambda: Linen(gain=True), lambda rngs: Nnx(rngs, bias=False), checks=just("outputs"))
    assert set(structure_notes(case)) == {"nnx has no counterpart of it; same where d/bias is 0 and gain is 1"}
    assert [(one.leaf, one.value) for one in scope_of(case).held] == [("d/bias", "0"), ("gain", "1")]


def test_a_condition_is_that_of_one_candidate_alone():
    """A third port has the leaf too, and is the same whatever it is."""
    layers = (linear("d", old="d", new="d", nnx="d"), linear("out", old="out", new="out", nnx="out"))
    models = {"old": lambda: Linen(), "new": lambda: Linen(), "nnx": lambda rngs: Nnx(rngs, bias=False)}
    case = run_case(LoadedCase("three", "", Case("", models, BATCH, layers, checks=just("outputs"))))
    assert case.verdicts == {"new": "same", "nnx": "different"}
    assert verdict_words(case, "new") == "same"
    assert structure_notes(case) == ["nnx has no counterpart of it; same where it is 0"]
    assert "nnx is compared where d/bias of old is 0" in scope_of(case).notes
    assert scope_of(case).condition == ""


def test_no_value_is_told_where_outputs_are_not_asked():
    case = found(lambda: Linen(), lambda rngs: Nnx(rngs, bias=False), layers=DENSE, checks=("structure", "gradients"))
    assert structure_notes(case) == ["nnx has no such leaf"]


def test_a_leaf_that_is_needed_has_no_such_value():
    class Needed(Nnx):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.gain = nnx.Param(jnp.full(5, 0.5))

        def __call__(self, x):
            return self.out(jax.nn.relu(self.d(x)) * self.gain * 3)

    (note,) = structure_notes(found(lambda: Linen(), lambda rngs: Needed(rngs), checks=just("outputs")))
    assert note.startswith("linen has no counterpart of it; not the same at any value tried (0.5, 0, 1); closest where")


def test_another_fault_is_found_beside_it():
    case = found(lambda: Linen(), lambda rngs: Nnx(rngs, bias=False, between="gelu"))
    assert later_grades(case)["outputs"] == later_grades(case)["gradients"] == "refuted"
    (note,) = structure_notes(case)
    assert note.endswith("closest where it is 0: outputs, call __call__: output differs")
    (outputs,) = [check for check in case.checks if check.check == "outputs"]
    assert outputs.findings[0].first_differences


def accepted(right, value: HeldValue = 0.0, left=lambda: Linen(), layers=DENSE, **options):
    return found(left, right, layers=(*layers, only("linen", "d/bias", value)), **options)


def test_an_accepted_leaf_is_a_condition_of_the_verdict():
    run = equiv.compare(
        lambda: Linen(), lambda rngs: Nnx(rngs, bias=False), batch=BATCH, layers=(*DENSE, only("linen", "d/bias", 0))
    )
    assert run.headline == "Same: 1 comparison of 1 case, where d/bias of linen is 0."
    (case,) = run.cases
    assert case.verdicts == {"nnx": "same"}
    assert verdict_words(case, "nnx") == "same where d/bias of linen is 0"
    assert scope_of(case).text.endswith(", where d/bias of linen is 0")
    assert any(
        note.startswith("d/bias of linen trained away from there is not covered") for note in scope_of(case).notes
    )


def test_an_accepted_leaf_hides_no_other_fault():
    case = accepted(lambda rngs: Nnx(rngs, bias=False, between="gelu"), checks=just("outputs"))
    assert case.verdicts == {"nnx": "different"}
    assert later_grades(case)["outputs"] == "refuted"


def test_an_accepted_value_that_is_wrong_differs():
    case = accepted(lambda rngs: Nnx(rngs, bias=False), 0.5, checks=just("outputs"))
    assert case.verdicts == {"nnx": "different"}


def test_what_the_library_initialises_a_leaf_to_is_a_value():
    case = accepted(lambda rngs: Nnx(rngs, bias=False), "initial", checks=just("outputs"))
    assert case.verdicts == {"nnx": "same"}
    assert [one.value for one in scope_of(case).held] == ["0"]


def test_what_an_optimizer_keeps_for_it_is_one_ports_own():
    case = accepted(lambda rngs: Nnx(rngs, bias=False), optimizer=lambda: optax.adam(0.1))
    assert case.verdicts == {"nnx": "same"}
    (train,) = [check for check in case.checks if check.check == "train"]
    assert any("only linen keeps" in remark for remark in train.remarks)


def test_a_batch_norm_is_trained_alike_without_the_bias():
    layers = (linear("d", linen="d", nnx="d"), batch_norm("bn", linen="bn", nnx="bn"))
    case = accepted(lambda rngs: NnxNorms(rngs), left=lambda: LinenNorms(), layers=layers)
    assert case.verdicts == {"nnx": "same"}
    assert set(later_grades(case)) >= {"state", "train"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (only("linen", "d/bais", 0), r"only\('linen', 'd/bais'\) names a leaf that linen does not have; closest is"),
        (only("linen", "d/bias", float("nan")), r"has the value nan\..* Give a finite number, or \"initial\""),
        (
            only("nnx", "out/bias", 0),
            r"linen: only\('nnx', 'out/bias'\) says that other ports lack out/bias, but",
        ),
        (
            only("linen", "d/kernel", "initial"),
            r"linen: d/kernel cannot be held at what linen initialises it to, which is dr",
        ),
    ],
)
def test_a_row_that_cannot_be_meant_is_an_error(row, message):
    with pytest.raises(CaseError, match=message):
        found(lambda: Linen(), lambda rngs: Nnx(rngs, bias=False), layers=(*DENSE, row))


def stepped_linen():
    model, tx = Linen(), optax.chain(optax.clip_by_global_norm(1e9), optax.adam(0.1))

    def create(params):
        return TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    def train_step(state, x):
        def loss_of(params):
            outputs: Any = model.apply({"params": params}, x)
            return (outputs**2).mean()

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradients), loss

    return model, train_step, create


def stepped_nnx(rate):
    def build(rngs):
        def create(model):
            tx = optax.chain(optax.clip_by_global_norm(1e9), optax.adam(rate))
            return nnx.Optimizer(model, tx, wrt=nnx.Param)

        def train_step(model, optimizer, x):
            loss, gradients = nnx.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
            optimizer.update(model, gradients)
            return loss

        return Nnx(rngs, bias=False), train_step, create

    return build


@pytest.mark.quick(1)
@pytest.mark.parametrize(("rate", "verdict"), [(0.2, "different"), (0.1, "same")])
def test_train_steps_of_users_start_at_the_value(rate, verdict):
    """Of every step: so a rate that differs is found, though the leaf that one port has would be trained."""
    case = accepted(stepped_nnx(rate), left=stepped_linen, checks=just("outputs", "train"))
    assert case.verdicts == {"nnx": verdict}
    assert later_grades(case)["outputs"] in EQUAL
    assert (later_grades(case)["train"] == "refuted") == (verdict == "different")


def test_a_reference_with_a_held_leaf_is_not_frozen():
    models = {"linen": lambda: Linen(), "nnx": lambda rngs: Nnx(rngs, bias=False)}
    case = Case("", models, BATCH, (*DENSE, only("linen", "d/bias", 0)))
    with pytest.raises(CaseError, match=r"linen: d/bias is held at 0 by a row of the layer table, and is not frozen"):
        freeze_reference(LoadedCase("held", "", case))


def test_widths_that_differ_are_told_side_by_side():
    class Narrow(Nnx):
        def __init__(self, rngs):
            self.d, self.out = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
            self.between = "relu"

    case = found(lambda: Linen(), lambda rngs: Narrow(rngs), checks=just("outputs"))
    assert case.verdicts == {"nnx": "different"}
    (check,) = [one for one in case.checks if one.check == "structure"]
    assert {(one.reference, one.candidate) for one in check.findings} == {
        ("float32[5]", "float32[4]"), ("float32[6, 5]", "float32[6, 4]"), ("float32[5, 3]", "float32[4, 3]"),
    }  # fmt: skip
