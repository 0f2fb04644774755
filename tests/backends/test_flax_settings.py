"""What Flax models make and are set to that changes no value: names of axes without a mesh, HiJAX, tree mode, `sow`."""

import flax
import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.errors import EquivError

BATCH = {"x": "float32[2,4]"}
FORWARD = just("outputs", "state")


class Loss(nnx.Variable):
    """A loss that a call leaves behind."""


class Dense(nnx.Module):
    def __init__(self, rngs):
        self.d = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.d(x)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


@pytest.fixture
def setting():
    """Set an option of Flax for one test."""
    before = {}

    def set_option(name, value):
        before[name] = getattr(flax.config, name)
        flax.config.update(name, value)

    yield set_option
    for name, value in before.items():
        flax.config.update(name, value)


def compared(left, right, checks=FORWARD):
    """The verdict and the notes on its scope."""
    (case,) = equiv.compare(left, right, batch=BATCH, checks=checks).cases
    (found,) = case.verdicts.values()
    return str(found), case.scope.notes if case.scope else ()


def dense():
    return nn.Dense(3, name="d")


def named_axes(rngs):
    """A layer whose parameters have names of axes, which Flax shards at once where there is a mesh."""
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("in", "out"))
    module = Dense(rngs)
    module.d = nnx.Linear(4, 3, kernel_init=init, rngs=rngs)
    return module


class Remembers(Dense):
    """It has state of its own, written in every call."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.last = nnx.Cache(jnp.zeros((2, 3)))

    def __call__(self, x):
        self.last[...] = self.d(x)
        return self.last[...]


class LinenRemembers(nn.Module):
    @nn.compact
    def __call__(self, x):
        last = self.variable("cache", "last", jnp.zeros, (2, 3))
        last.value = nn.Dense(3, name="d")(x)
        return last.value


def test_names_of_axes_need_no_mesh():
    assert compared(dense, named_axes)[0] == "same"


@pytest.mark.parametrize(("option", "value"), [("flax_hijax_variable", True), ("nnx_graph_mode", False)])
def test_a_setting_of_flax_changes_no_verdict(setting, option, value):
    setting(option, value)
    assert compared(LinenRemembers, Remembers, checks=None)[0] == "same"


@pytest.mark.parametrize("keyword", ["hijax", "ref"])
def test_a_variable_that_is_no_plain_one_is_named(keyword):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.seen = nnx.Variable(jnp.zeros(()), **{keyword: True})

    with pytest.raises(EquivError, match=rf"nnx: seen is a variable with {keyword}=True\..* Make it without"):
        compared(dense, Model)


def test_a_variable_made_in_a_call_is_said():
    class Model(Dense):
        def __call__(self, x):
            x = self.d(x)
            self.loss = Loss((x**2).mean())
            return x

    found, notes = compared(dense, Model)
    assert found == "same"
    assert "nnx: a call makes loss: not compared" in notes


def test_a_parameter_made_in_a_call_is_an_error():
    class Model(Dense):
        def __call__(self, x):
            self.late = nnx.Param(jnp.ones(3))
            return self.d(x) * self.late

    with pytest.raises(EquivError, match=r"nnx: __call__ adds late \(params\), which initialisation did not create"):
        compared(dense, Model)


def test_what_linen_sows_anywhere_is_no_state():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3, name="d")(x)
            self.sow("losses", "aux", (x**2).mean())
            return x

    found, notes = compared(Model, Dense)
    assert found == "same"
    assert "linen: a call makes losses: not compared" in notes


def test_a_tuple_that_a_call_keeps_is_state():
    class Model(nn.Module):
        step = 1.0

        @nn.compact
        def __call__(self, x):
            kept = self.variable("kept", "pair", lambda: (jnp.zeros(()), jnp.zeros(())))
            kept.value = (kept.value[0] + self.step, kept.value[1])
            return nn.Dense(3, name="d")(x)

    class Other(Model):
        step = 2.0

    assert compared(Model, Other)[0] == "different"


def test_synchronised_statistics_are_compared():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool = False):
            norm = nn.vmap(
                lambda module, x: nn.BatchNorm(not train, axis_name="batch", name="norm")(x),
                variable_axes={"params": None, "batch_stats": None},
                split_rngs={"params": False},
                axis_name="batch",
            )
            return norm(self, x)

    class Ported(nnx.Module):
        momentum = 0.99

        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(4, axis_name="batch", momentum=self.momentum, rngs=rngs)

        def __call__(self, x, train: bool = False):
            def call(norm, x):
                return norm(x, use_running_average=not train)

            return nnx.vmap(call, in_axes=(None, 0), axis_name="batch")(self.norm, x)

    class Slower(Ported):
        momentum = 0.999

    assert compared(Model, Ported)[0] == "same"
    assert compared(Model, Slower)[0] == "different"
