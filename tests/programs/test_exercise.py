"""What a run exercises of a program: rows, branches, thresholds and loops, in calls and scans too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.core.output_name import OutputName, ProgramName, batch_input
from equiv.programs.exercise import Site, list_unexercised, merge_observed, observe_program
from equiv.programs.program import Program

CALL = ProgramName("call", "__call__")


def program_of(function, *arrays):
    """A function of arrays as a program."""
    names = tuple(batch_input(f"x{index}") for index in range(len(arrays)))
    jaxpr = jax.make_jaxpr(lambda *given: jax.tree.leaves(function(*given)))(*arrays)
    outputs = tuple(OutputName(CALL, "output", path=f"[{index}]") for index in range(len(jaxpr.out_avals)))
    return Program(CALL, jaxpr, names, outputs)


def observed(function, *arrays):
    """What one run exercises, and the outputs."""
    program = program_of(function, *arrays)
    sites = []

    def run(*given):
        outputs, found = observe_program(program, given)
        sites[:] = [site for site, _ in found]
        return outputs, [statistics for _, statistics in found]

    outputs, statistics = jax.jit(run)(*arrays)
    found = merge_observed([{site: np.asarray(one)} for site, one in zip(sites, statistics, strict=True)])
    return list(outputs.values()), found


def told(function, *arrays):
    """Every place that is exercised in part: kind, what was seen, relation and bound."""
    _, found = observed(function, *arrays)
    return [(one.kind, one.seen, one.relation, one.bound) for one in list_unexercised("port", found)]


X = np.linspace(-1, 2, 12, dtype="float32").reshape(3, 4)


def test_rows_that_are_never_looked_up_are_counted():
    table = jnp.arange(30.0).reshape(10, 3)
    assert told(lambda ids: table[ids], np.array([1, 3, 3])) == [("rows", (2,), "", 10)]
    assert told(lambda ids: table[ids], np.arange(10)) == []


def test_rows_of_a_take_along_another_axis_are_counted():
    table = jnp.arange(30.0).reshape(3, 10)
    assert told(lambda ids: jnp.take(table, ids, axis=1), np.array([0, 9])) == [("rows", (2,), "", 10)]


def test_a_constant_lookup_is_no_choice():
    assert told(lambda x: x[jnp.array([0, 1])] * 2, X) == []


def test_a_branch_that_is_never_taken_is_named():
    def switch(index, x):
        return jax.lax.switch(index, [lambda x: x, lambda x: x + 1, lambda x: x * 2], x)

    assert told(switch, np.int32(1), X) == [("branch", (1,), "", 3)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: jnp.where(x > 60, 0.0, x), [("threshold", (-1, 2), ">", 60)]),
        (lambda x: jnp.where(jax.lax.lt(60.0, x), 0.0, x), [("threshold", (-1, 2), ">", 60)]),
        (lambda x: jnp.where(x > 1, 0.0, x), []),
        (lambda x: jnp.where(x >= 2, 0.0, x), []),
        (lambda x: jnp.where(x > 2, 0.0, x), [("threshold", (-1, 2), ">", 2)]),
        (lambda x: jnp.where(x < -1, 0.0, x), [("threshold", (-1, 2), "<", -1)]),
        (lambda x: jnp.where(x <= -1, 0.0, x), []),
        (lambda x: jnp.clip(x, -5, 1), [("threshold", (-1, 2), "<", -5)]),
        (lambda x: jax.lax.clamp(-5.0, x, 7.0), [("threshold", (-1, 2), "<", -5), ("threshold", (-1, 2), ">", 7)]),
        (lambda x: jnp.minimum(x, 100.0), [("threshold", (-1, 2), "<", 100)]),
        (jax.nn.relu, []),
        (lambda x: x.max(axis=1), []),
        (lambda x: jax.nn.softmax(x), []),
    ],
)
def test_a_threshold_is_told_where_only_one_side_is_seen(function, expected):
    assert told(function, X) == expected


def test_a_threshold_inside_calls_and_scans_is_seen():
    def scanned(x):
        return jax.lax.scan(lambda c, row: (jax.jit(lambda c: jnp.minimum(c + row, 50.0))(c), c), x[0], x)

    (found,) = told(scanned, X)
    assert (found[0], found[2:]) == ("threshold", ("<", 50))
    assert found[1][1] == pytest.approx(2 + 1 / 11 * 3 + 2, abs=2)


def test_the_turns_of_a_loop_are_told():
    def loop(x):
        return jax.lax.while_loop(lambda v: v.sum() < 100, lambda v: v * 2, x)

    (found,) = [one for one in told(loop, X + 2) if one[0] == "loop"]
    total, turns = float((X + 2).sum()), 0
    while total < 100:
        total, turns = total * 2, turns + 1
    assert found == ("loop", (turns, turns), "", 0)


def test_the_wrap_of_negative_indices_is_no_threshold():
    """`table[ids]` asks `ids < 0`, whichever ids are given: that is jax's own question."""
    table = jnp.arange(30.0).reshape(10, 3)
    assert told(lambda ids: table[ids], np.arange(10)) == []


def test_a_rare_event_is_told_a_draws_own_bound_not():
    draw = (lambda key: jax.random.uniform(key, (5,)) * 2, jax.random.key(0))
    assert told(*draw) == []
    ((kind, seen, relation, bound),) = told(lambda key: jax.random.bernoulli(key, 1e-6, (5,)), jax.random.key(0))
    assert (kind, relation, bound) == ("threshold", "<", pytest.approx(1e-6))
    assert 1e-6 < seen[0] < seen[1] < 1


def test_several_runs_are_merged():
    one, other = (observed(lambda x: jnp.where(x > 60, 0.0, x), array)[1] for array in (X, X * 50))
    assert list_unexercised("port", merge_observed([one, other])) == ()
    assert len(list_unexercised("port", one)) == 1


def test_a_place_names_the_users_line():
    (site,) = observed(lambda x: jnp.where(x > 60, 0.0, x), X)[1]
    assert isinstance(site, Site)
    assert site.where.startswith("tests/programs/test_exercise.py:")


def everything(ids, x, key):
    """A program with each kind of place, and draws, whose own bounds are not told."""
    table = jnp.arange(40.0).reshape(10, 4)
    y = table[ids] + jax.random.normal(key, (3, 4)) + jax.random.uniform(key, (3, 4), minval=-2.0)
    y = jax.lax.cond(x.sum() > 0, lambda y: y, lambda y: -y, y)
    y, ys = jax.lax.scan(lambda c, row: (jnp.minimum(c + row, 50.0), c * 2), y, y, reverse=True)
    return jax.lax.while_loop(lambda v: v.sum() < 100, lambda v: v + 1, y), ys, jax.nn.relu(x)


def test_observation_changes_no_output():
    given = (np.array([1, 2, 3]), X, jax.random.key(1))
    outputs, found = observed(everything, *given)
    wanted = jax.tree.leaves(jax.jit(everything)(*given))
    for ours, theirs in zip(outputs, wanted, strict=True):
        assert np.array_equal(ours, theirs)
    assert {site.kind for site in found} == {"rows", "branch", "threshold", "loop"}
