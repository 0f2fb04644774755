"""What differs between releases of jax gives the same on each: with what newer ones have, and without it."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.compat import (
    OLD_CALLS,
    aval_of,
    bind_equation,
    enable_x64,
    jit_with_options,
    key_text,
    partition_parts,
    reduce_by,
    trace_context,
)
from equiv.programs.jaxpr import HOOKS

SOURCES = sorted((Path(__file__).parent.parent / "equiv").rglob("*.py"))


def test_64_bits_hold_within_the_context_only():
    with enable_x64(True):
        assert jnp.ones(1).dtype == "float64"
        with enable_x64(False):
            assert jnp.ones(1).dtype == "float32"
    assert jnp.ones(1).dtype == "float32"


@pytest.mark.parametrize("old", [False, True])
def test_an_equation_is_bound_with_its_own_or_other_parameters(old):
    """Until jax 0.9.0 the parameters for `bind` come with the functions that are its first operands."""
    (eqn,) = jax.make_jaxpr(lambda x: x.sum(0))(np.ones((2, 3), "float32")).eqns
    own = eqn.primitive
    primitive = SimpleNamespace(bind=own.bind, multiple_results=False, get_bind_params=lambda params: ([], params))
    eqn = SimpleNamespace(primitive=primitive, params=eqn.params) if old else eqn
    array = np.arange(6, dtype="float32").reshape(2, 3)
    assert bind_equation(eqn, [array])[0].tolist() == [3, 5, 7]
    assert bind_equation(eqn, [array], {**eqn.params, "axes": (1,)})[0].tolist() == [3, 12]


def test_an_equation_with_several_results_gives_all():
    (eqn,) = jax.make_jaxpr(jax.jit(lambda x: (x + 1, x - 1)))(1.0).eqns
    assert list(map(float, bind_equation(eqn, [5.0]))) == [6.0, 4.0]


@pytest.mark.parametrize("old", [False, True])
def test_a_key_of_a_path_is_text_without_brackets(monkeypatch, old):
    if old:
        ours = jax.tree_util.keystr
        monkeypatch.setattr(jax.tree_util, "keystr", lambda keys: ours(keys))
    kinds = jax.tree_util
    keys = kinds.DictKey("kernel"), kinds.SequenceKey(3), kinds.GetAttrKey("mu"), kinds.FlattenedIndexKey(2)
    assert [key_text(key) for key in keys] == ["kernel", "3", "mu", "2"]


@pytest.mark.parametrize("old", [False, True])
def test_a_tracers_shape_is_known_while_it_is_traced(monkeypatch, old):
    if old:
        monkeypatch.delattr(jax, "typeof")
    found = []
    jax.make_jaxpr(lambda x: found.append(aval_of(x)) or x)(np.ones((2, 3), "int32"))
    assert [(one.shape, str(one.dtype)) for one in found] == [((2, 3), "int32")]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["max", "min", "sum"])
def test_a_reduction_is_that_of_numpy(monkeypatch, name, old):
    if old:
        monkeypatch.delattr(jax.lax, f"reduce_{name}")
    array = np.arange(6.0, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(reduce_by(name)(array, (1,)), getattr(np, name)(array, 1))


@pytest.mark.parametrize("old", [False, True])
def test_a_function_is_compiled_with_options(monkeypatch, old):
    if old:
        ours = jax.jit
        monkeypatch.setattr(jax, "jit", lambda function: ours(function))
    found = jit_with_options(lambda x: 2 * x, {"xla_backend_optimization_level": "0"})
    assert found(np.ones(3, "float32")).tolist() == [2.0] * 3
    with pytest.raises(Exception, match="no_such_option"):
        jit_with_options(lambda x: 2 * x, {"no_such_option": "0"})(1.0)


@pytest.mark.parametrize("old", [False, True])
def test_a_function_is_traced_anew_within_a_context(monkeypatch, old):
    if old:
        monkeypatch.delattr(jax, "make_user_context")
        monkeypatch.setattr(jax, "clear_caches", lambda: traced.clear_cache())  # all of jax's would cost other tests
    count = []
    traced = jax.jit(lambda x: count.append(1) or x)
    context = trace_context()
    traced(1.0), traced(1.0)
    with context(1):
        traced(1.0)
    with context(2):
        traced(1.0)
    assert len(count) == 3


def test_an_old_partition_is_a_tuple_of_axes():
    spec = jax.sharding.PartitionSpec("a", None)
    assert partition_parts(spec)[0] == partition_parts(("a", None))[0] == ("a", None)


def test_calls_under_their_old_names_are_opened():
    assert {HOOKS[name] for name in OLD_CALLS} == {"call"}


@pytest.mark.parametrize(
    "name",
    [
        r"jax\.(enable_x64|typeof|make_user_context)\(",
        r"get_bind_params\(",
        r"simple=True",
        r"lax\.reduce_(max|min|sum)\(",
        r"jax\.jit\([^)]*compiler_options",
    ],
)
def test_what_releases_have_differently_is_asked_of_compat(name):
    def calls(path):
        """Lines that call it: a docstring names it between backquotes."""
        return [line for line in path.read_text().splitlines() if re.search(name, line) and "`" not in line]

    assert {path.name for path in SOURCES if calls(path)} <= {"compat.py"}


def test_every_difference_says_which_release_changed_it():
    import equiv.compat

    functions = [
        one for _, one in inspect.getmembers(equiv.compat, inspect.isfunction) if one.__module__ == "equiv.compat"
    ]
    assert len(functions) >= 7
    assert [one.__name__ for one in functions if not re.search(r"jax(lib)? 0\.", inspect.getdoc(one))] == []
