"""Calls with constants, keywords, nested inputs, None and a mode of their own, in three libraries."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.backends import registry
from equiv.backends.build import port_spec
from equiv.core.case import Case
from equiv.layers import linear

BATCH = {"x": "f32[2,4]", "pair": ({"a": "f32[2,3]", "none": None}, "bool[2]"), "labels": "i32[2]:3", "flag": "bool[2]"}
OUTPUTS = just("outputs")
ROWS = (linear("l", haiku="l", linen="l", nnx="l"),)
LIBRARIES = ("haiku", "linen", "nnx")


def compute(layer, x, pair, scale, cache, train):
    """Every argument changes the result, so that a wrong one shows."""
    assert cache is None
    assert pair[0]["none"] is None
    hidden = layer(x) * (2.0 if train else 1.0) + pair[0]["a"] * scale
    return jnp.where(pair[1][:, None], hidden, 0.0)


def haiku():
    def call(x, pair=None, *, scale, cache=0, train):
        return compute(hk.Linear(3, name="l"), x, pair, scale, cache, train)

    return hk.transform(call)


def linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, pair=None, *, scale, cache=0, deterministic):
            return compute(nn.Dense(3, name="l"), x, pair, scale, cache, not deterministic)

    return Net()


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.l, self.deterministic = nnx.Linear(4, 3, rngs=rngs), False

    def __call__(self, x, pair=None, *, scale, cache=0):
        return compute(self.l, x, pair, scale, cache, not self.deterministic)

    def set_attributes(self, *_, deterministic=None, **__):
        self.deterministic = deterministic

    def train(self, **_):
        self.deterministic = False

    def eval(self, **_):
        self.deterministic = True


BUILDERS = {"haiku": haiku, "linen": linen, "nnx": NnxNet}


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def call_port(library, method, train=False, **given):
    """The output of a port with weights of one, and whether it has modes."""
    spec, entries = port_spec(Case("", {}, BATCH, (), methods=(method,)))
    port = registry.load_backend(library).build(BUILDERS[library], spec)
    leaves = {key: jnp.ones(leaf.shape, leaf.dtype) for key, leaf in port.leaves.items()}
    arrays = {name: jnp.ones(entry.spec.shape, entry.spec.dtype) for name, entry in entries.items()} | given
    inputs = tuple(arrays[name] for name in spec.methods["__call__"].inputs)
    return port.apply(leaves, "__call__", inputs, train, jax.random.key(0))[0], port.has_modes


@pytest.mark.parametrize("library", LIBRARIES)
def test_nested_inputs_and_constants_arrive(library):
    method = "__call__(x, pair, scale=3.0, cache=None)"
    mask = {"pair/1": jnp.array([True, False])}
    for train, wanted in ((False, 8.0), (True, 13.0)):
        found, has_modes = call_port(library, method, train, **mask)
        assert has_modes
        assert found.tolist() == [[wanted] * 3, [0.0] * 3]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("mode", "wanted"), [("train=True", 13.0), ("deterministic=True", 8.0)])
def test_a_mode_in_the_call_holds_whatever_its_name(library, mode, wanted):
    """Linen calls it `deterministic`, Haiku `train`, and the NNX module has it as an attribute."""
    for train in (False, True):
        found, has_modes = call_port(library, f"__call__(x, pair, scale=3.0, cache=None, {mode})", train)
        assert not has_modes
        assert found.tolist() == [[wanted] * 3] * 2


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_display_of_inputs_is_an_argument(library):
    method = '__call__(x, pair=({"a": 2.0, "none": None}, flag), scale=3.0, cache=None, train=False)'
    found, _ = call_port(library, method, flag=jnp.array([False, True]))
    assert found.tolist() == [[0.0] * 3, [11.0] * 3]


def verdict(**given):
    (case,) = equiv.compare(haiku, NnxNet, batch=BATCH, layers=ROWS, names=("haiku", "nnx"), **given).cases
    return case.verdicts["nnx"], case.scope


def test_a_call_in_one_mode_is_compared_and_said():
    """Both are trained in that mode too, by a loss that reads the nested batch."""
    method = "__call__(x, pair, scale=0.5, cache=None, train=True)"
    found, scope = verdict(methods=(method,), loss=lambda out, batch: (out * batch["pair"][0]["a"]).mean(), steps=2)
    assert (found, scope.modes) == ("same", ("call",))
    assert "pair/0/a float32[2,3], pair/1 bool[2], labels int32[2]:3, flag bool[2]; " + method in scope.text


def test_another_constant_is_another_model():
    class Other(NnxNet):
        def __call__(self, x, pair=None, *, scale, cache=0):
            return super().__call__(x, pair, scale=abs(scale), cache=cache)

    for scale, wanted in ((0.5, "same"), (-0.5, "different")):
        method = f"__call__(x, pair, scale={scale}, cache=None)"
        (case,) = equiv.compare(NnxNet, Other, batch=BATCH, methods=(method,), checks=OUTPUTS).cases
        assert set(case.verdicts.values()) == {wanted}


def named(layer, image, mask):
    return layer(image) * mask[:, None]


def haiku_named():
    return hk.transform(lambda *, image, mask: named(hk.Linear(3, name="l"), image, mask))


def linen_named():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, *, image, mask):
            return named(nn.Dense(3, name="l"), image, mask)

    return Net()


def test_inputs_by_keyword_alone_need_no_method():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.l = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, *, mask, image):
            return named(self.l, image, mask)

    for left, right in ((haiku_named, linen_named), (linen_named, Net)):
        (case,) = equiv.compare(left, right, batch={"image": "f32[2,4]", "mask": "f32[2]"}, checks=OUTPUTS).cases
        assert set(case.verdicts.values()) == {"same"}
