"""Backends: what they take from a builder, what they give, and what each says of a builder that cannot be used."""

import functools
import importlib

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from equiv.backends import registry
from equiv.backends.base import PortSpec, bind_arguments, check_leaves, pytree_path
from equiv.backends.calls import call_arguments, has_free_mode
from equiv.core.leaves import NativeKey
from equiv.core.method_call import call_of
from equiv.errors import CaseError, NotRun, PortError

EVERY = ("haiku", "linen", "nnx")
KEY = jax.random.key(0)
BATCH = {"x": jax.ShapeDtypeStruct((5, 3), "float32"), "labels": jax.ShapeDtypeStruct((5,), "int32")}


def request_for(*methods):
    methods = dict.fromkeys(methods or ("__call__",), call_of("x"))
    return PortSpec(methods, BATCH, lambda outputs, _: (outputs**2).mean(), lambda: optax.sgd(0.1))


def models():
    """A dense layer from 3 to 2 features in every library."""
    return {
        "haiku": lambda: hk.transform(lambda x: hk.Linear(2)(x)),
        "linen": lambda: nn.Dense(2),
        "nnx": lambda rngs: nnx.Linear(3, 2, rngs=rngs),
    }


def returning(backend, change):
    """The builder of `models` with what it returns changed."""
    return lambda *rngs: change(models()[backend](*rngs))


def build(backend, builder, *methods):
    return registry.load_backend(backend).build(builder, request_for(*methods))


def one_step(port):
    """One train step, traced only: the carry before, and the carry and outputs after."""
    carry = jax.eval_shape(lambda key: port.init_training(port.init(key), key), KEY)
    return carry, jax.eval_shape(port.step, carry, BATCH, KEY)


def test_there_are_as_many_backends_as_files():
    assert registry.backend_names() == EVERY


def test_an_unknown_backend_is_an_error_naming_the_known_ones():
    with pytest.raises(CaseError, match=r"torch: no such backend; there are: haiku, linen, nnx\. Rename the key"):
        registry.load_backend("torch")


@pytest.mark.parametrize("name", ["base", "__init__", ""])
def test_a_module_that_is_no_backend_is_not_loaded(name):
    with pytest.raises(CaseError, match=r": no such backend; there are"):
        registry.load_backend(name)


def test_a_missing_library_is_not_run_and_never_a_pass(monkeypatch):
    real = importlib.import_module

    def missing(name):
        if not name.endswith(".build"):
            return real(name)
        raise ModuleNotFoundError("No module named 'haiku'", name="haiku")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(NotRun, match=r"haiku: haiku is not installed here\. Install dm-haiku to compare this port"):
        registry.load_backend("haiku")


@pytest.mark.parametrize("backend", EVERY)
def test_a_port_has_the_models_leaves_and_computes_its_outputs(backend):
    port = build(backend, models()[backend])
    assert port.name == backend
    assert port.default_step
    assert not port.has_modes
    assert sorted(leaf.shape for leaf in port.leaves.values()) == [(2,), (3, 2)]
    assert set(port.collections.values()) == {"params"}
    native = {key: np.full(leaf.shape, 0.5, leaf.dtype) for key, leaf in port.leaves.items()}
    outputs, after = port.apply(native, "__call__", (jnp.ones((5, 3)),), False, KEY)
    np.testing.assert_array_equal(outputs, np.full((5, 2), 2.0))
    assert set(after) == set(native)


@pytest.mark.parametrize("backend", EVERY)
def test_fresh_leaves_match_the_port_and_differ_between_keys(backend):
    port = build(backend, models()[backend])
    one, other = port.init(KEY), port.init(jax.random.key(1))
    assert {key: (leaf.shape, leaf.dtype) for key, leaf in one.items()} == {
        key: (leaf.shape, leaf.dtype) for key, leaf in port.leaves.items()
    }
    kernel = next(key for key, leaf in port.leaves.items() if leaf.shape == (3, 2))
    assert not np.array_equal(one[kernel], other[kernel])


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda model: 3, r"\(int\)"),
        (lambda model: None, r"\(NoneType\)"),
        (lambda model: (), r"\(\)"),
        (lambda model: {"model": model}, r"\(dict\)"),
        (lambda model: (print, model), r"\(builtin_function_or_method, \w+\)"),
        (lambda model: (model, 3), r"\(\w+, int\)"),
        (lambda model: (model, print, print, print), r"\(\w+(, builtin_function_or_method){3}\)"),
    ],
    ids=["number", "nothing", "empty", "dict", "swapped", "step-not-callable", "four"],
)
def test_a_builder_that_returns_something_else_says_what_is_wanted(backend, change, shown):
    wanted = {"haiku": r"what hk\.transform, .* returns", "linen": r"a flax\.linen\.Module", "nnx": r"an nnx\.Module"}
    message = (
        rf"{backend}: the builder returned {shown}, wanted {wanted[backend]}\. "
        r"Return model, \(model, train_step\) or \(model, train_step, create\)"
    )
    with pytest.raises(CaseError, match=message):
        build(backend, returning(backend, change))


@pytest.mark.parametrize("backend", EVERY)
def test_a_method_that_the_model_lacks_is_an_error(backend):
    """The error names the method."""
    who = {
        "haiku": r"haiku: no apply function for encode: the case asks for __call__, encode, the .* function has 1\. ",
        "linen": r"linen: Dense has no method 'encode', which the case's methods name\. Add it",
        "nnx": r"nnx: Linear has no method 'encode', which the case's methods name\. Add it",
    }
    with pytest.raises(CaseError, match=who[backend]):
        build(backend, models()[backend], "__call__", "encode")


def test_haiku_methods_are_taken_by_name_or_in_order():
    def multi(names):
        def two():
            layer = hk.Linear(2)
            functions = (lambda x: layer(x), lambda x: -layer(x))
            return layer, dict(zip(names, functions, strict=True)) if names else functions

        return lambda: hk.multi_transform(two)

    for names in ((), ("negative", "positive")):
        methods = ("positive", "negative")
        port = build("haiku", multi(names), *methods)
        native = {key: np.ones(leaf.shape, leaf.dtype) for key, leaf in port.leaves.items()}
        outputs = [port.apply(native, name, (jnp.ones((5, 3)),), False, KEY)[0] for name in methods]
        assert [float(output[0, 0]) for output in outputs] == ([4, -4] if not names else [-4, 4])


def stepping(backend, step, create=None):
    """A builder of `models` with a train step."""
    return returning(backend, lambda model: (model, step) if create is None else (model, step, create))


def no_op(backend):
    """A train step that changes nothing and asks for a parameter that no case has."""
    return (lambda model, momentum: None) if backend == "nnx" else (lambda params, momentum: params)


@pytest.mark.parametrize("backend", EVERY)
def test_an_unknown_train_step_parameter_names_the_known_ones(backend):
    step = no_op(backend)
    step.__name__ = "train_step"
    port = build(backend, stepping(backend, step))
    with pytest.raises(
        CaseError,
        match=rf"{backend}: train_step has the parameter 'momentum', for which there is no value; available are: "
        r"batch, key, labels, .*x\. Rename the parameter, or add 'momentum' to the batch",
    ):
        one_step(port)


@pytest.mark.parametrize("backend", EVERY)
def test_create_may_ask_for_what_there_is_before_training_only(backend):
    port = build(backend, stepping(backend, no_op(backend), lambda x: x))
    with pytest.raises(
        CaseError,
        match=rf"{backend}: <lambda>, returned as create, has the parameter 'x', for which there is no value; "
        r"available are: .*\. Rename the parameter, or return one that has such names: lambda params: function\(",
    ):
        one_step(port)


def test_a_parameter_with_a_default_need_not_be_known():
    assert bind_arguments("nnx", lambda x, momentum=0.9: None, {"x": 1, "y": 2}) == {"x": 1}


def test_a_function_without_a_name_lists_what_it_can_have():
    nameless = functools.partial(lambda x, momentum: None)
    with pytest.raises(CaseError, match=r"nnx: a function has the parameter 'momentum'.*available are: x\."):
        bind_arguments("nnx", nameless, {"x": 1})


@pytest.mark.parametrize("backend", ["haiku", "linen"])
def test_too_few_train_step_results_name_what_it_carries(backend):
    def train_step(params, opt_state, x):
        return (params,)

    port = build(backend, stepping(backend, train_step, lambda params: optax.sgd(0.1).init(params)))
    with pytest.raises(
        CaseError,
        match=rf"{backend}: train_step returns 1 values but takes params, opt_state\. Return the updated values",
    ):
        one_step(port)


@pytest.mark.parametrize("backend", ["haiku", "linen"])
def test_what_a_train_step_returns_beyond_its_carry_are_outputs(backend):
    def train_step(params, x, labels):
        return params, x.sum(), labels

    carry, (after, outputs) = one_step(build(backend, stepping(backend, train_step)))
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    assert [leaf.shape for leaf in jax.tree.leaves(outputs)] == [(), (5,)]


@pytest.mark.parametrize("backend", EVERY)
def test_a_train_step_may_return_its_only_carry_bare(backend):
    step = (lambda model, x: None) if backend == "nnx" else (lambda params, x: jax.tree.map(jnp.negative, params))
    port = build(backend, stepping(backend, step))
    assert not port.default_step
    carry, (after, outputs) = one_step(port)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    assert outputs == ()


@pytest.mark.parametrize("backend", EVERY)
def test_the_train_step_of_equiv_changes_every_parameter(backend):
    """A case without a train step gets one of equiv's."""
    port = build(backend, models()[backend])
    carry = port.init_training(port.init(KEY), KEY)
    batch = {"x": jnp.ones((5, 3)), "labels": jnp.zeros(5, "int32")}
    after, outputs = port.step(carry, batch, KEY)
    before, moved = ([leaf for leaf in jax.tree.leaves(tree) if jnp.ndim(leaf)] for tree in (carry, after))
    assert [leaf.shape for leaf in jax.tree.leaves(outputs)] == [()]
    assert all(not np.array_equal(one, other) for one, other in zip(before, moved, strict=True))


@pytest.mark.parametrize("backend", EVERY)
def test_a_train_step_leaves_the_given_carry_as_it_was(backend):
    port = build(backend, models()[backend])
    carry = port.init_training(port.init(KEY), KEY)
    before = jax.tree.map(np.array, carry)
    port.step(carry, {"x": jnp.ones((5, 3)), "labels": jnp.zeros(5, "int32")}, KEY)
    jax.tree.map(np.testing.assert_array_equal, carry, before)


class CountsInEval(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        self.variable("state", "mean", jnp.zeros, ())
        if training:
            self.variable("state", "late", jnp.zeros, ())
        return x


class MakesInCall(nnx.Module):
    def __call__(self, x):
        self.late = nnx.BatchStat(jnp.zeros(()))
        return x


def late_state(backend):
    """A model whose call makes a variable that initialisation does not make."""

    def forward(x, training):
        hk.get_state("mean", (), init=jnp.zeros)
        if not training:
            hk.get_state("late", (), init=jnp.zeros)
        return x

    return {
        "haiku": lambda: hk.transform_with_state(forward),
        "linen": CountsInEval,
        "nnx": lambda rngs: MakesInCall(),
    }[backend]


@pytest.mark.parametrize(("backend", "train"), [("haiku", False), ("linen", True), ("nnx", False)])
def test_state_that_a_call_creates_is_an_error_naming_it(backend, train):
    port = build(backend, late_state(backend))
    with pytest.raises(
        PortError,
        match=rf"{backend}: __call__ adds (~/)?late \(state\), which initialisation did not create\. "
        r"Create every variable when the model is built or initialised",
    ):
        port.apply(port.init(KEY), "__call__", (jnp.ones((5, 3)),), train, KEY)


def test_state_that_a_call_loses_is_an_error_too():
    key = NativeKey("state", "mean")
    with pytest.raises(PortError, match=r"nnx: __call__ removes mean \(state\), which initialisation created"):
        check_leaves("nnx", "__call__", {key: 0}, {})


@pytest.mark.parametrize(
    ("function", "in_train", "in_eval"),
    [
        (lambda x, training: x, {"training": True}, {"training": False}),
        (lambda x, is_training: x, {"is_training": True}, {"is_training": False}),
        (lambda x, train=False: x, {"train": True}, {"train": False}),
        (lambda x, deterministic=None: x, {"deterministic": False}, {"deterministic": True}),
        (lambda x, training, deterministic: x, *({"training": on, "deterministic": not on} for on in (True, False))),
        (lambda x: x, {}, {}),
    ],
    ids=["training", "is_training", "train", "deterministic", "two", "none"],
)
def test_mode_arguments_are_those_that_the_call_has(function, in_train, in_eval):
    assert call_arguments(function, call_of("x"), (0,), True) == ((0,), in_train)
    assert call_arguments(function, call_of("x"), (0,), False) == ((0,), in_eval)
    assert has_free_mode(function, call_of("x")) == bool(in_train)


class Switching(nn.Module):
    @nn.compact
    def __call__(self, x, training):
        return x * 2 if training else x


def switching(backend):
    """A model that doubles its input in train mode; NNX zeroes it, as a dropout that drops everything."""
    return {
        "haiku": lambda: hk.transform(lambda x, training: x * 2 if training else x),
        "linen": Switching,
        "nnx": lambda rngs: nnx.Dropout(1.0, rngs=rngs),
    }[backend]


@pytest.mark.parametrize(("backend", "in_train"), [("haiku", 2.0), ("linen", 2.0), ("nnx", 0.0)])
def test_train_and_eval_mode_reach_the_model(backend, in_train):
    port = build(backend, switching(backend))
    assert port.has_modes
    x = jnp.ones((5, 3))
    results = [port.apply(port.init(KEY), "__call__", (x,), train, KEY)[0] for train in (True, False)]
    assert [float(result[0, 0]) for result in results] == [in_train, 1.0]


def test_random_state_of_nnx_is_neither_parameter_nor_state():
    port = build("nnx", switching("nnx"))
    assert set(port.collections.values()) == {"random"}


def test_applying_an_nnx_port_leaves_the_given_leaves_unchanged():
    port = build("nnx", lambda rngs: nnx.BatchNorm(3, rngs=rngs))
    native = port.init(KEY)
    before = jax.tree.map(np.array, native)
    _, after = port.apply(native, "__call__", (jnp.arange(15.0).reshape(5, 3),), True, KEY)
    mean = NativeKey("state", "mean")
    np.testing.assert_array_equal(native[mean], before[mean])
    assert not np.array_equal(after[mean], before[mean])


def test_pytree_paths_leave_out_what_wraps_an_array():
    tree = {"a": [1, {"value": 2}], "b": nnx.Param(jnp.ones(2)), "c": nn.Partitioned(jnp.ones(2), ("m",))}
    paths = [pytree_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    assert paths == ["a/0", "a/1/value", "b", "c"]
