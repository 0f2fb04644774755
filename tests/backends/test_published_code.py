"""What published models have beside parameters: boxes, streams, modes as arguments, tables, sown values."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.backends import registry
from equiv.backends.base import PortSpec
from equiv.core.leaves import NativeKey
from equiv.core.method_call import call_of
from equiv.errors import PortError

BATCH = {"x": "float32[2,4]"}
FORWARD = just("outputs", "randomness", "state")
SPEC = PortSpec(
    {"__call__": call_of("x")},
    {"x": jax.ShapeDtypeStruct((2, 4), "float32")},
    lambda outputs, _: (outputs**2).mean(),
    lambda: optax.sgd(0.1),
)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def build(library, builder):
    return registry.load_backend(library).build(builder, SPEC)


def call_once(port):
    """Call a port abstractly."""
    jax.eval_shape(
        lambda key: port.apply(port.init(key), "__call__", (jnp.ones((2, 4)),), True, key), jax.random.key(0)
    )


def verdict(left, right, checks=FORWARD):
    (case,) = equiv.compare(left, right, batch=BATCH, checks=checks).cases
    (found,) = case.verdicts.values()
    return str(found)


def dense():
    return hk.transform(lambda x: hk.Linear(3, name="d")(x))


def boxed(kernel=(None, "model"), bias=("model",)):
    """A dense layer whose parameters have names of axes."""

    def builder():
        ones = nn.with_partitioning(nn.initializers.ones, bias)
        return nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.ones, kernel), bias_init=ones, name="d")

    return builder


class Dense(nnx.Module):
    """A dense layer; subclasses add what is tried."""

    def __init__(self, rngs):
        self.d = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.d(x)


def test_parameters_in_boxes_are_leaves():
    port = build("linen", boxed())
    assert list(port.leaves) == [NativeKey("params", "bias"), NativeKey("params", "kernel")]


def test_boxed_parameters_reach_the_model_in_their_boxes():
    seen = []

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.with_partitioning(nn.initializers.ones, (None, "m")), (4, 3), unbox=False)
            seen.append(type(kernel))
            return x @ nn.meta.unbox(kernel)

    call_once(build("linen", Model))
    assert set(seen) == {nn.Partitioned}


def test_boxed_training_equals_plain_training():
    assert verdict(dense, boxed(), checks=None) == "same"


def noisy(scale):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3, name="d")(x)
            return x + scale * jax.random.normal(self.make_rng("noise"), x.shape)

    return Model


def noise():
    def call(x):
        x = hk.Linear(3, name="d")(x)
        return x + jax.random.normal(hk.next_rng_key(), x.shape)

    return hk.transform(call)


@pytest.mark.parametrize(("scale", "expected"), [(1, "same"), (2, "different")])
def test_a_stream_may_have_any_name(scale, expected):
    assert verdict(noise, noisy(scale)) == expected


def test_what_linen_sows_is_no_state():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3, name="d")(x)
            self.sow("intermediates", "norm", (x**2).sum())
            return x

    assert verdict(dense, Model) == "same"


def dropped(inverted):
    """An NNX model that takes its mode as an argument, as it is or the wrong way round."""

    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x, train=False):
            return self.drop(self.d(x), deterministic=train if inverted else not train)

    return Model


class Dropped(nn.Module):
    """The same in Linen."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(3, name="d")(x))


@pytest.mark.parametrize(("inverted", "expected"), [(False, "same"), (True, "different")])
def test_nnx_takes_its_mode_as_an_argument(inverted, expected):
    assert verdict(Dropped, dropped(inverted)) == expected


def test_streams_that_nnx_has_to_be_given():
    class Model(Dense):
        def __call__(self, x, rngs):
            x = self.d(x)
            return x + jax.random.normal(rngs.noise(), x.shape)

    assert verdict(noise, Model) == "same"


def shifted(table):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="d")(x + jnp.sin(table()))

    return Model


def holding(hold):
    """An NNX model that holds an array that is no variable."""

    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.table = hold(jnp.arange(4.0))

        def __call__(self, x):
            return self.d(x + jnp.sin(self.table["t"] if isinstance(self.table, dict) else self.table))

    return Model


HOLDERS = {"array": lambda t: t, "data": lambda t: nnx.data({"t": t}), "numpy": lambda _: np.arange(4, dtype="float32")}


@pytest.mark.parametrize("how", HOLDERS)
def test_a_table_in_nnx_is_a_constant(how):
    assert verdict(shifted(lambda: jnp.arange(4.0)), holding(HOLDERS[how])) == "same"


def test_another_table_in_nnx_is_another_model():
    assert verdict(shifted(lambda: jnp.arange(4.0)), holding(lambda table: table.at[3].set(3.001))) == "different"


def test_a_table_that_is_drawn_is_a_leaf():
    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.fixed, self.drawn = jnp.arange(4.0), jax.random.normal(rngs.params(), (4,))

        def __call__(self, x):
            return self.d(x + self.fixed + self.drawn)

    port = build("nnx", Model)
    call_once(port)
    leaves = port.leaves
    assert NativeKey("state", "drawn") in leaves
    assert NativeKey("state", "fixed") not in leaves


def counting(jitted):
    """An NNX model whose call replaces an array that is no variable."""

    def call(self, x):
        self.count = self.count + 1
        return self.d(x) * self.count

    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.count = jnp.zeros(())

    Model.__call__ = nnx.jit(call) if jitted else call
    return Model


@pytest.mark.parametrize("jitted", [False, True])
def test_replacing_a_constant_is_an_error(jitted):
    port = build("nnx", counting(jitted))
    with pytest.raises(PortError, match=r"nnx: a call replaces count, .* Make it an nnx\.Variable"):
        call_once(port)


def test_a_train_step_that_replaces_a_constant_is_an_error():
    @nnx.jit
    def train_step(model, optimizer, x):
        model.table = model.table + 1
        return (model(x) ** 2).mean()

    def create(model):
        return nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    port = build("nnx", lambda rngs: (holding(HOLDERS["array"])(rngs), train_step, create))
    carry = jax.eval_shape(lambda key: port.init_training(port.init(key), key), jax.random.key(0))
    with pytest.raises(PortError, match="nnx: a call replaces table"):
        jax.eval_shape(port.step, carry, SPEC.batch, jax.random.key(0))


def test_a_constant_in_a_jitted_call_is_kept():
    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.table = jnp.arange(4.0)

        @nnx.jit
        def __call__(self, x):
            return self.d(x + jnp.sin(self.table))

    assert verdict(shifted(lambda: jnp.arange(4.0)), Model) == "same"


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
@pytest.mark.parametrize("kind", [nnx.Intermediate, nnx.Variable])
def test_what_nnx_sows_is_no_state(kind):
    class Model(Dense):
        def __call__(self, x):
            x = self.d(x)
            self.sow(kind, "norm", (x**2).sum())
            return x

    assert verdict(dense, Model) == "same"


def test_a_variable_may_hold_several_arrays():
    class Model(Dense):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.seen = nnx.Variable((jnp.zeros(3), jnp.ones(3)))

    assert {NativeKey("state", "seen.0"), NativeKey("state", "seen.1")} <= set(build("nnx", Model).leaves)
