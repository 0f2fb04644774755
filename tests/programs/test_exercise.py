"""What a run exercises of a program: rows, branches, thresholds and loops, in calls and scans too."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.core.output_name import OutputName, ProgramName, batch_input, draw_input
from equiv.programs.exercise import Site, list_unexercised, list_untried_tails, merge_observed
from equiv.programs.observer import observe_program
from equiv.programs.program import Draw, Program

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


def told(function, *arrays, kinks=False):
    """Every place that is exercised in part: kind, what was seen, relation and bound; kinks only where asked for."""
    _, found = observed(function, *arrays)
    places = [(one.kind, one.seen, one.relation, one.bound) for one in list_unexercised("port", found)]
    return [one for one in places if kinks or one[0] != "kink"]


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
    assert [place.kind for place in list_unexercised("port", merge_observed([one, other]))] == ["kink"]
    assert [place.kind for place in list_unexercised("port", one)] == ["threshold", "kink"]


def test_a_place_names_the_users_line():
    site, choice = observed(lambda x: jnp.where(x > 60, 0.0, x), X)[1]
    assert site.where == choice.where
    assert isinstance(site, Site)
    assert site.where.startswith("tests/programs/test_exercise.py:")


def everything(ids, x, key):
    """A program with each kind of place, and draws, whose own bounds are not told."""
    table = jnp.arange(40.0).reshape(10, 4)
    y = table[ids] + jax.random.normal(key, (3, 4)) + jax.random.uniform(key, (3, 4), minval=-2.0)
    y = jax.lax.cond(x.sum() > 0, lambda y: y, lambda y: -y, y)
    y, ys = jax.lax.scan(lambda c, row: (jnp.minimum(c + row, 50.0), c * 2), y, y, reverse=True)
    y = jax.lax.while_loop(lambda v: v.sum() < 100, lambda v: v + 1, y)
    return y, ys, jax.nn.relu(x), jnp.where(y > ys, y, jnp.sort(x)), jnp.argmax(jnp.abs(x)), jax.lax.top_k(x, 2)


def test_observation_changes_no_output():
    given = (np.array([1, 2, 3]), X, jax.random.key(1))
    outputs, found = observed(everything, *given)
    wanted = jax.tree.leaves(jax.jit(everything)(*given))
    for ours, theirs in zip(outputs, wanted, strict=True):
        assert np.array_equal(ours, theirs)
    assert {site.kind for site in found} == {"rows", "branch", "threshold", "loop", "kink"}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.relu(x),
        lambda x: jnp.abs(x),
        lambda x: jnp.sign(x),
        lambda x: jnp.sqrt(x**2),
        lambda x: jnp.maximum(x[0], x[1] * 2),
        lambda x: x[0] > 2 * x[1],
        lambda x: jnp.where(x == 0, 1.0, x),
        lambda x: jnp.argmax(x, axis=1),
        lambda x: jnp.max(x, axis=1),
        lambda x: jnp.sort(x, axis=1),
        lambda x: jax.lax.top_k(x, 2),
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2), (1, 2), "VALID"),
    ],
)
def test_a_kink_counts_once_a_tie_is_met(function):
    distinct = np.array([[1.0, 2.0, 3.0], [5.0, 7.0, 11.0]], "float32") / 9
    assert [one for one in told(function, distinct, kinks=True) if one[0] == "kink"] == [("kink", (0,), "", 1)]
    assert [one for one in told(function, distinct * 0, kinks=True) if one[0] == "kink"] == []


def test_kinks_that_had_no_tie_are_named():
    def model(x):
        return jax.nn.relu(x), jnp.maximum(x, 5.0), jnp.sort(x, axis=1), jnp.isnan(x)

    _, found = observed(model, np.array([[0.0, 1.0, 2.0]], "float32"))
    (kinks,) = [one for one in list_unexercised("port", found) if one.kind == "kink"]
    assert (kinks.seen, kinks.bound) == ((1,), 3)
    assert kinks.text.startswith("1 of 3 kinks met at an exact tie or zero, not ")
    assert "> 5 at tests/programs/test_exercise.py:" in kinks.where
    assert "sort at tests/programs/test_exercise.py:" in kinks.where


def test_a_choice_that_a_program_never_makes_is_named():
    """Its condition has no number to aim at: all of it is one way on every probe."""
    assert told(lambda x: jnp.where(jnp.all(x > x.mean()), 0.0, x), X) == [("branch", (0,), "select", 2)]
    assert told(lambda x: jax.lax.cond(jnp.all(x > x.mean()), lambda: x, lambda: -x), X) == [("branch", (0,), "", 2)]
    assert told(lambda x: jnp.where(x > x.mean(), 0.0, x), X) == []
    assert told(lambda x: jnp.where(jnp.eye(3, 4) > 0, 0.0, x), X) == [], "a constant decides"


def test_what_a_draw_decides_is_no_branch_and_no_kink():
    bits = jax.ShapeDtypeStruct((4,), "float32")
    jaxpr = jax.make_jaxpr(lambda drawn, x: jnp.where(drawn < 0.5, 0.0, x))(bits, bits)
    inputs = (draw_input(0), batch_input("x"))
    program = Program(CALL, jaxpr, inputs, (OutputName(CALL, "output"),))
    _, found = observe_program(program, [jnp.full(4, 0.25), jnp.ones(4)])
    assert [(site.kind, site.kink, site.drawn) for site, _ in found] == [("threshold", False, True)]


def test_draws_whose_tails_were_not_tried_are_counted():
    draws = (Draw((5, 3), 32, "m.py:3"), Draw((), 32, "m.py:4"))
    programs = [replace(program_of(lambda x: x, X), draws=draws)]
    (none,) = list_untried_tails("port", programs, tried=False)
    assert none.text == "tails of 0 of 2 draws tried, not those of call __call__"
    (one,) = list_untried_tails("port", programs, tried=True)
    assert one.text == "tails of 1 of 2 draws tried, not those of call __call__"
