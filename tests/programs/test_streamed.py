"""Outputs one by one are those of a whole run, come before all are known, and are held by nobody but their reader."""

import weakref
from dataclasses import replace

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from equiv.compat import enable_x64
from equiv.programs.compiled import by_operation, run_executable
from equiv.programs.keep_casts import leave_casts_out
from equiv.programs.streamed import evaluate_one_by_one, stream_each_output

X = np.linspace(0.3, 1.9, 6, dtype="float32")


@pytest.mark.quick(2)
@pytest.mark.parametrize("float64", [False, True], ids=["native", "float64"])
@pytest.mark.parametrize("name", ["rnn_scan", "dropout", "batch_norm"])
def test_outputs_one_by_one_are_those_of_a_whole_run(name, float64):
    """In float64 too, where the inputs of the whole run are widened before it."""
    port = helpers.compiled_reference(name)
    programs = replace(port.traced.programs, begin=None, step=None)
    if float64:
        with enable_x64(True):
            programs = replace(programs, float64=True, parts=tuple(map(leave_casts_out, programs.parts)))
    executable = by_operation(programs, port.table, port.native.steps)
    probe = helpers.reference(name).probes[0]
    whole, found = run_executable(executable, probe), list(stream_each_output(executable, probe))
    assert {one for one, _ in found} == set(whole)
    assert len(found) == len(whole)
    for one, array in found:
        assert array.dtype == whole[one].dtype
        assert np.array_equal(array, whole[one], equal_nan=True), one
    ranks = [one.program.complexity for one, _ in found]
    assert ranks == sorted(ranks)


def test_every_kind_of_output_is_given_once():
    """An input, a constant, a result, one result twice, and what a loop makes."""

    def function(x):
        y = x * 2
        return x, 3.0, y, y, jax.lax.scan(lambda carry, one: (carry + one, carry), x[0], x)[1], y.sum()

    closed = jax.make_jaxpr(function)(X)
    found = dict(evaluate_one_by_one(closed, [X], float64=False))
    assert sorted(found) == list(range(6))
    for index, value in enumerate(jaxpr_as_fun(closed)(X)):
        np.testing.assert_allclose(found[index], value, rtol=1e-6)


def test_what_was_read_is_held_no_longer():
    """Of a hundred outputs one is in memory at a time."""
    closed = jax.make_jaxpr(lambda x: [jnp.sin(x * (1 + index)) for index in range(100)])(np.ones(1000, "float32"))
    alive: list[weakref.ref] = []
    most = 0
    for _, array in evaluate_one_by_one(closed, [np.ones(1000, "float32")], float64=False):
        alive.append(weakref.ref(array))
        del array
        most = max(most, sum(one() is not None for one in alive))
    assert len(alive) == 100
    assert most <= 3
