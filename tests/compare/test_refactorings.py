"""Old and new of one library: a refactoring is the same model, and a fault in it is found by its check."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from equiv.case import Case
from equiv.compare.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import layer_norm, linear


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


def refactored(models, layers):
    """The result of a case with these models."""
    case = Case(guide="none", models=models, batch={"x": "float32[4,7]"}, layers=layers)
    return run_case(LoadedCase("refactored", "", case))


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
    result = refactored({"old": old, "new": new}, layers)
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
    assert refactored(models, rows).verdicts == {"new": "different", "port": "same"}
