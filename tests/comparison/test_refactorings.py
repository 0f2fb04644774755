"""Old and new of one library: a refactoring is the same model, and a fault in it is found by its check."""

from dataclasses import replace

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import just

from equiv.case import Case, Deviation, zero_debias
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import batch_norm, conv, layer_norm, linear
from equiv.report.findings.possible_causes import describe_side, failed_findings


class Written(nn.Module):
    """Two blocks, written out."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="first")(x))
        x = nn.relu(nn.Dense(8, name="second")(x))
        return nn.Dense(3, name="head")(x)


class Looped(nn.Module):
    """The same in a loop."""

    last: bool = True

    def setup(self):
        self.blocks = [nn.Dense(8) for _ in range(2)]
        self.out = nn.Dense(3)

    def __call__(self, x):
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.last or index == 0:
                x = nn.relu(x)
        return self.out(x)


class Attributes(nnx.Module):
    """A norm and a layer."""

    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(7, rngs=rngs)
        self.dense = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


class Renamed(nnx.Module):
    """The same under other names."""

    def __init__(self, rngs, epsilon=1e-6):
        self.pre = nnx.LayerNorm(7, epsilon=epsilon, rngs=rngs)
        self.project = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.project(self.pre(x))


def library_norm():
    """Haiku's own norm."""
    return hk.transform(lambda x: hk.Linear(3, name="dense")(hk.LayerNorm(-1, True, True, name="norm")(x)))


def own_norm(train_scale=True):
    """The same norm, written by hand."""

    class Norm(hk.Module):
        def __call__(self, x):
            scale = hk.get_parameter("scale", x.shape[-1:], init=jnp.ones)
            offset = hk.get_parameter("offset", x.shape[-1:], init=jnp.zeros)
            scale = scale if train_scale else jax.lax.stop_gradient(scale)
            mean, var = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
            return scale * jax.lax.rsqrt(var + 1e-5) * (x - mean) + offset

    return hk.transform(lambda x: hk.Linear(3, name="dense")(Norm(name="norm")(x)))


LINEN = (
    linear("first", old="first", new="blocks_0"),
    linear("second", old="second", new="blocks_1"),
    linear("head", old="head", new="out"),
)
NNX = (layer_norm("norm", old="norm", new="pre"), linear("dense", old="dense", new="project"))
HAIKU = (layer_norm("norm", haiku="norm"), linear("dense", haiku="dense"))


def refactored(models, layers, checks=None):
    """The result of a case with these models."""
    case = Case(guide="none", models=models, batch={"x": "float32[4,7]"}, layers=layers, checks=checks)
    return run_case(LoadedCase("refactored", "", case))


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("old", "new", "layers"),
    [
        (Written, Looped, LINEN),
        (lambda rngs: Attributes(rngs), lambda rngs: Renamed(rngs), NNX),
        (library_norm, own_norm, HAIKU),
    ],
    ids=["linen", "nnx", "haiku"],
)
def test_a_refactoring_is_the_same_model(old, new, layers):
    assert refactored({"old": old, "new": new}, layers).verdicts == {"new": "same"}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("old", "new", "layers", "check", "place"),
    [
        (Written, lambda: Looped(last=False), LINEN, "outputs", "call __call__: output"),
        (lambda rngs: Attributes(rngs), lambda rngs: Renamed(rngs, 1e-3), NNX, "outputs", "call __call__: output"),
        (library_norm, lambda: own_norm(False), HAIKU, "gradients", "gradient __call__: gradient norm/scale"),
    ],
    ids=["linen", "nnx", "haiku"],
)
def test_a_fault_in_a_refactoring_is_found(old, new, layers, check, place):
    """An activation that is left out, another epsilon, a scale that is no longer trained."""
    result = refactored({"old": old, "new": new}, layers, just("outputs", "gradients"))
    assert result.verdicts == {"new": "different"}
    refuted = [
        item.place for one in result.checks if one.check == check for item in one.findings if item.grade == "refuted"
    ]
    assert place in refuted
    if check == "gradients":
        assert {one.grade for one in result.checks if one.check == "outputs"} <= {
            "proved",
            "proved modulo",
            "exact",
            "float64",
        }


def test_three_ports_of_two_libraries():
    """Two of one library and one of another; the one that is off is the one that is named."""
    rows = tuple(linear(row.path, **row.scopes, port=row.scopes["old"]) for row in LINEN)

    def port():
        def forward(x):
            x = jax.nn.relu(hk.Linear(8, name="first")(x))
            return hk.Linear(3, name="head")(jax.nn.relu(hk.Linear(8, name="second")(x)))

        return hk.transform(forward)

    models = {"old": Written, "new": lambda: Looped(last=False), "port": port}
    result = refactored(models, rows, just("outputs"))
    assert result.verdicts == {"new": "different", "port": "same"}
    vote = describe_side(result, *next(iter(failed_findings(result, "new"))))
    assert vote.startswith("old and port agree here and only new differs: look at new.")


def averaging(decay=0.9):
    """A layer and Haiku's batch norm, whose averages are debiased."""

    def forward(x, training: bool):
        return hk.BatchNorm(True, True, decay, name="norm")(hk.Linear(5, name="dense")(x), training)

    return hk.transform_with_state(forward)


class Plain(nn.Module):
    """The same in Linen, whose averages are not."""

    @nn.compact
    def __call__(self, x, training: bool):
        x = nn.Dense(5, name="dense")(x)
        return nn.BatchNorm(momentum=0.9, use_running_average=not training, name="norm")(x)


AVERAGING = (linear("dense", haiku="dense", linen="dense"), batch_norm("norm", haiku="norm", linen="norm"))


def averaged(models, port="haiku", checks=None):
    """The result of a case whose `port` differs by the known difference of its averages."""
    known = tuple(replace(one, backend=port) for one in zero_debias("norm", decay=0.9))
    given = {"layers": AVERAGING, "known_differences": known, "checks": checks}
    case = Case(guide="none", models=models, batch={"x": "float32[4,7]"}, **given)
    return run_case(LoadedCase("averaged", "", case))


def train_grades(result, candidate):
    """Leaf to grade in the check of training, for the averages and what only Haiku has of them."""
    (check,) = [one for one in result.checks if (one.check, one.candidate) == ("train", candidate)]
    found = {str(item.place).removeprefix("train: "): item.grade for item in check.findings}
    return {name: grade for name, grade in found.items() if name.startswith(("norm/mean", "norm/var"))}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"old": averaging, "new": averaging, "linen": Plain}, {"new": False, "linen": True}),
        ({"linen": Plain, "old": averaging, "new": averaging}, {"old": True, "new": True}),
    ],
    ids=["haiku is the reference", "linen is the reference"],
)
@pytest.mark.slow
def test_a_known_difference_that_both_have_is_none(models, expected):
    """Keyed by a library it holds for each of its ports, against those of another library alone."""
    result = averaged(models)
    assert set(result.verdicts.values()) == {"same"}
    for candidate, differs in expected.items():
        grades = train_grades(result, candidate)
        assert len(grades) == 6
        assert ("expected" in grades.values()) == differs


def test_averages_of_two_ports_with_another_decay_differ():
    """The known difference of their library excuses nothing between them, and their own leaves are compared too."""
    result = averaged({"old": averaging, "new": lambda: averaging(0.8)}, checks=just("train"))
    assert result.verdicts == {"new": "different"}
    assert {name for name, grade in train_grades(result, "new").items() if grade == "refuted"} == {
        f"norm/{leaf}" for leaf in ("mean", "mean.hidden", "var", "var.hidden")
    }


def test_a_known_difference_of_one_port_is_its_own():
    """Keyed by one of two ports of Haiku it is checked between them, where it is no longer needed: stale."""
    given = {"port": "old", "checks": just("train")}
    assert averaged({"old": averaging, "linen": Plain}, **given).verdicts == {"linen": "same"}
    result = averaged({"old": averaging, "new": averaging}, **given)
    assert result.verdicts == {"new": "different"}


def test_a_layout_is_given_port_by_port():
    """Two convolutions of Haiku, one of them with channels first. Said of both, the other's bias has no such axes."""

    def first():
        return hk.transform(lambda x: hk.Conv2D(4, 3, data_format="NCHW", name="conv")(x))

    def last():
        return hk.transform(lambda x: hk.Conv2D(4, 3, name="conv")(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))

    def run(channels_first):
        case = Case(
            guide="none",
            models={"old": first, "new": last},
            batch={"x": "float32[2,3,5,5]"},
            layers=(conv("conv", channels_first=channels_first, haiku="conv"),),
            checks=just("outputs"),
        )
        return run_case(LoadedCase("layout", "", case))

    assert run({"old": 2}).verdicts == {"new": "same"}
    assert run(2).verdicts == {"new": "error"}


def test_a_deviation_of_a_library_is_one_of_its_ports():
    """So that the report marks it in each builder; a library that no port is of is left as it is."""
    rows = [Deviation(library, "a", "b", "c", "d") for library in ("linen", "haiku")]
    models = {"old": Written, "new": Looped}
    case = Case(guide="none", models=models, batch={"x": "float32[4,7]"}, layers=LINEN, deviations=tuple(rows))
    found = run_case(LoadedCase("errata", "", replace(case, checks=just("outputs")))).deviations
    assert [one.backend for one in found] == ["old", "new", "haiku"]
