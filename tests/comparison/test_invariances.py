"""Rows alone and without padding: faults that all ports have, which no comparison of two of them finds."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from equiv.case import BatchInvariance, Case, Padding
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import batch_norm, linear

LENGTH, WIDTH = 5, 4


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def mix(x, mask, scores, fault):
    """Attention of every position on the valid ones, and what is wrong with it."""
    allowed = jnp.ones_like(mask) if fault == "mask" else mask
    logits = jnp.einsum("bqd,bkd->bqk", scores, x)
    weights = jax.nn.softmax(jnp.where(allowed[:, None, :], logits, -1e30), axis=0 if fault == "axis" else -1)
    return jnp.einsum("bqk,bkd->bqd", weights, x)


class Linen(nn.Module):
    fault: str = ""

    @nn.compact
    def __call__(self, x, mask):
        return mix(x, mask, nn.Dense(WIDTH, name="scores")(x), self.fault)


class Nnx(nnx.Module):
    def __init__(self, rngs, fault=""):
        self.scores, self.fault = nnx.Linear(WIDTH, WIDTH, rngs=rngs), fault

    def __call__(self, x, mask):
        return mix(x, mask, self.scores(x), self.fault)


def haiku():
    return hk.without_apply_rng(hk.transform(lambda x, mask: mix(x, mask, hk.Linear(WIDTH, name="scores")(x), "")))


MASK = np.arange(LENGTH) < np.array([2, 5, 4])[:, None]
SCORES = (linear("scores", haiku="scores", linen="scores", nnx="scores"),)


def judge(models, invariances, layers=SCORES, **changed):
    given = {"batch": {"x": f"float32[3,{LENGTH},{WIDTH}]", "mask": MASK}, "checks": ("outputs", "invariance")}
    case = Case("", models, layers=layers, invariances=invariances, **{**given, **changed})
    return run_case(LoadedCase("padded", "", case))


def judged(result):
    return {name: str(verdict) for name, verdict in result.verdicts.items()}


def invariance(result):
    (check,) = (one for one in result.checks if one.check == "invariance")
    return check


@pytest.mark.slow
def test_three_ports_are_the_same_with_rows_alone():
    result = judge({"haiku": haiku, "linen": Linen, "nnx": Nnx}, (Padding("mask"), BatchInvariance()))
    assert judged(result) == {"linen": "same", "nnx": "same"}


def test_rows_without_padding_are_compared_in_each_port():
    result = judge({"old": Linen, "nnx": Nnx}, (Padding("mask"),))
    assert judged(result) == {"nnx": "same"}
    places = [one.place for one in invariance(result).findings]
    assert places == [f"{port}: __call__ without the padding of mask: row 0" for port in ("old", "nnx")]
    assert all(
        "rows 0, 1, 2 of 3, counted from 0, were called alone" in one.note for one in invariance(result).findings
    )


@pytest.mark.quick(1)
@pytest.mark.parametrize(("fault", "declared"), [("mask", Padding("mask")), ("axis", BatchInvariance())])
def test_a_fault_of_both_ports_is_found_by_rows_alone(fault, declared):
    result = judge(dict.fromkeys(("old", "new"), lambda: Linen(fault)), (declared,))
    assert judged(result) == {"new": "error"}
    assert {one.check: one.grade for one in result.checks if one.check != "invariance"} == {
        "structure": "exact",
        "outputs": "proved",
    }
    notes = [one.note for one in invariance(result).findings]
    assert all("in the batch it computes" in note and "old and new both differ by this" in note for note in notes)


def test_a_fault_of_one_port_is_refuted_there():
    result = judge({"old": Linen, "new": lambda: Linen("mask")}, (Padding("mask"),))
    assert judged(result) == {"new": "different"}
    grades = {one.place.partition(":")[0]: one.grade for one in invariance(result).findings}
    assert grades["new"] == "refuted"
    assert grades["old"] in ("float64", "exact", "proved")


class Normed(nn.Module):
    """A batch norm that uses the batch in eval mode, too."""

    right: bool

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=self.right and not train, name="norm")(x)


@pytest.mark.parametrize(("right", "verdict"), [(True, "same"), (False, "error")])
def test_batch_statistics_in_eval_mode_are_found(right, verdict):
    models, rows = dict.fromkeys(("old", "new"), lambda: Normed(right)), (batch_norm("norm", linen="norm"),)
    assert judged(judge(models, (BatchInvariance(),), rows, batch={"x": "float32[3,2]"})) == {"new": verdict}


def test_what_is_not_proved_is_no_pass_without_a_run():
    case = Case(
        "",
        dict.fromkeys(("old", "new"), lambda: Linen("mask")),
        {"x": f"float32[3,{LENGTH},{WIDTH}]", "mask": MASK},
        SCORES,
        invariances=(Padding("mask"),),
    )
    result = run_case(LoadedCase("padded", "", case), options=RunOptions(prove_only=True))
    assert judged(result)["new"] != "same"
    assert invariance(result).grade == "not run"


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="scores")(x) + jax.random.normal(self.make_rng("noise"), x.shape)


class Pooled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="scores")(x).mean()


@pytest.mark.parametrize(
    ("model", "message"),
    [(Noisy, "draws random numbers in eval mode"), (Pooled, "no output of __call__ has a row for each of the 3")],
)
def test_what_cannot_be_compared_with_rows_says_so(model, message):
    result = judge({"old": model, "new": model}, (BatchInvariance(),), batch={"x": f"float32[3,{WIDTH}]"})
    assert judged(result) == {"new": "error"}
    assert all(message in one.note for one in invariance(result).findings)
