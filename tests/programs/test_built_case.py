"""A builder is called twice: whether both calls gave one model is read from the program's content."""

import functools
import itertools
import random

import jax
import numpy as np
import pytest

from equiv.case import Case
from equiv.layers import linear
from equiv.programs.built_case import build_case

COUNT = itertools.count()
MESH = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
P = jax.sharding.PartitionSpec


def built(extend):
    """The problems of a case whose model applies what `extend()` returns to a linear layer."""

    def linen():
        import flax.linen as nn

        after = extend()

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return after(nn.Dense(3, name="l")(x))

        return Model()

    return build_case(
        Case(guide="g", models={"linen": linen}, batch={"x": "float32[3,4]"}, layers=(linear("l", linen="l"),))
    ).problems


def called(host):
    return lambda y: y + jax.pure_callback(host, jax.ShapeDtypeStruct(y.shape, y.dtype), jax.lax.stop_gradient(y))


def add_table(table, y):
    return (y + table.sum()).astype("float32")


def changing_table():
    """More numbers than numpy prints; the one that changes is in the middle."""
    table = np.zeros(3000, "float32")
    table[1500] = next(COUNT)
    return called(functools.partial(add_table, table))


def changing_constant():
    row = np.asarray([1, 2, next(COUNT)], "float32")
    return jax.shard_map(jax.jit(lambda v: v * row), mesh=MESH, in_specs=P("d"), out_specs=P("d"))


def changing_limit():
    limit = random.random()
    return called(lambda y: np.minimum(y, limit))


@pytest.mark.parametrize("extend", [changing_table, changing_constant, changing_limit])
def test_a_model_that_changes_from_call_to_call_is_refused(extend):
    (problem,) = built(extend).values()
    assert "the builder is not deterministic" in str(problem)


def same_table():
    return called(functools.partial(add_table, np.zeros(3000, "float32")))


def same_constant():
    row = np.asarray([1, 2, 3], "float32")
    return jax.shard_map(jax.jit(lambda v: v * row), mesh=MESH, in_specs=P("d"), out_specs=P("d"))


def same_limit():
    limit = 0.5
    return called(lambda y: np.minimum(y, limit))


def same_object():
    class Host:
        def __call__(self, y):
            return y

    return called(Host())


@pytest.mark.parametrize("extend", [same_table, same_constant, same_limit, same_object])
def test_functions_made_anew_by_each_call_are_one_model(extend):
    assert built(extend) == {}
