"""The scope of a verdict: shapes, dtypes, methods, modes, steps, and what no probe exercised."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from helpers import case_from, just, loaded

from equiv.comparison.pipeline import RunOptions, make_run_result, run_case
from equiv.core.case_files import LoadedCase
from equiv.core.scope import Scope, Unexercised, group_by_port
from equiv.report.markdown import render_markdown

SOURCE = """
from equiv.case import Case
from equiv.layers import linear, parameter


def refuse_zeros(y):
    import jax
    import numpy as np

    def host(array):
        array = np.asarray(array, y.dtype)
        if not array.any():
            raise ValueError("only zeros")
        return array

    return y + jax.pure_callback(host, jax.ShapeDtypeStruct(y.shape, y.dtype), jax.lax.stop_gradient(y))


def build(change):
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, ids, x):
            table = self.param("table", nn.initializers.normal(), (1000, 3))
            y = table[ids] + nn.Dense(3, name="d")(x)
            return change(y, jnp)

    return Model()


def old():
    return build(OLD)


def new():
    return build(NEW)


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"ids": "int32[5]:1000", "x": "float32[5,4]"},
    layers=(linear("d", old="d", new="d"), parameter("table", old="table", new="table")),
    steps=2,
)
"""
CLIPPED = "lambda y, jnp: jnp.where(y > 300, 0.0, y)"
OTHER = "lambda y, jnp: jnp.where(y > 400, 1.0, y)"


@cache
def compared(old, new, checks=None):
    case = case_from(SOURCE.replace("OLD", old).replace("NEW", new), "scope")
    return run_case(LoadedCase("scope", "Scope.", replace(case, checks=checks)))


def test_what_is_proved_holds_for_every_value_of_its_shapes():
    result = compared(CLIPPED, CLIPPED)
    assert result.scope.proved
    assert result.scope.unexercised == ()
    assert result.scope.text == (
        "every value of these shapes and dtypes: ids int32[5]:1000, x float32[5,4]; __call__(ids, x); 2 train steps, "
        "default optimizer sgd(0.1)"
    )


HIDDEN = "lambda y, jnp: jnp.where(jnp.tanh(y) > 2, 0.0, y)"
NEVER = "lambda y, jnp: jnp.where(jnp.tanh(y) > 3, 1.0, y)"


def test_a_difference_beyond_ordinary_values_is_found():
    """The ports differ where y > 300, which only a probe made for it reaches."""
    result = compared(CLIPPED, OTHER, just("outputs", "gradients"))
    assert result.verdicts == {"new": "different"}
    assert {place.kind for place in result.scope.unexercised} == {"rows", "kink"}


def test_a_place_that_no_probe_reaches_is_said():
    """No value is beyond what a tangent can be: that place is named in both."""
    result = compared(HIDDEN, NEVER, just("outputs", "gradients"))
    assert result.verdicts == {"new": "same"}
    assert not result.scope.proved
    places = [(one.port, one.relation, one.bound) for one in result.scope.unexercised if one.kind == "threshold"]
    assert places == [("old", ">", 2), ("new", ">", 3)]
    rows = {one.port: one for one in result.scope.unexercised if one.kind == "rows"}
    assert set(rows) == {"old", "new"}
    assert all(one.bound == 1000 and 10 < one.seen[0] <= 100 for one in rows.values())


def test_the_scope_is_in_markdown():
    result = compared(HIDDEN, NEVER, just("outputs", "gradients"))
    text = render_markdown([make_run_result([result], datetime.now(UTC), 0.0)])
    assert "## What the verdicts hold for" in text
    assert "the probes' values of these shapes and dtypes: ids int32" in text
    assert "new: &gt; 3 asked of values from" in text or "new: > 3 asked of values from" in text


def test_a_port_that_asks_for_its_batch_size_is_said():
    sized = "lambda y, jnp: y * (2 if y.shape[0] > 64 else 1)"
    scope = compared("lambda y, jnp: y * 1", sized).scope
    assert scope.proved
    assert [limit.split(" (")[0] for limit in scope.size_texts] == [
        "old: the same program with axis 0 of 133",
        "new: another program with axis 0 of 69 and 133 instead of 5",
    ]


def test_what_was_left_out_is_said():
    """The suite leaves out what only the check `compiled` needs."""
    scope = compared("lambda y, jnp: y * 1", "lambda y, jnp: y * 1").scope
    assert "the ports were not compiled as users do" in scope.notes
    assert "the ports were not compiled as users do" not in replace(scope, as_users=True).notes


def test_values_that_the_reference_refuses_are_said():
    result = compared("lambda y, jnp: refuse_zeros(y)", "lambda y, jnp: refuse_zeros(1 * y)", just("outputs"))
    (note,) = (note for note in result.scope.notes if "nothing was tried beyond ordinary values" in note)
    assert "ValueError: only zeros" in note


def test_modes_and_methods_of_a_guide_case_are_said():
    scope = run_case(loaded("batch_norm"), options=RunOptions(prove_only=True)).scope
    assert scope.modes == ("eval", "train")
    assert scope.text.startswith("what is proved, for these shapes"), "nothing was run"
    assert " in eval and train mode; " in scope.text


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Unexercised("a", "rows", "m.py:3", (13.0,), 1000), "13 of 1000 rows read at m.py:3"),
        (Unexercised("a", "branch", "m.py:3", (0.0, 2.0), 4), "of 4 branches only 0 and 2 taken at m.py:3"),
        (Unexercised("a", "threshold", "", (-1.0, 2.0), 60, ">"), "> 60 asked of values from -1 to 2 only"),
        (Unexercised("a", "loop", "m.py:3", (3.0, 5.0)), "while_loop of 3 to 5 turns at m.py:3"),
        (Unexercised("a", "branch", "", (0.0,), 2, "select"), "of 2 operands of a select only 0 taken"),
        (
            Unexercised("a", "kink", "> 2 at m.py:3", (1,), 2),
            "1 of 2 kinks met at an exact tie or zero, not > 2 at m.py:3",
        ),
        (Unexercised("a", "draw", "of step", (1,), 2), "tails of 1 of 2 draws tried, not those of step"),
    ],
)
def test_a_place_in_words(place, text):
    assert place.text == text


def test_ports_with_one_place_share_a_line():
    same = [Unexercised(port, "rows", "m.py:3", (13.0,), 1000) for port in ("old", "new")]
    assert list(group_by_port(same)) == ["old, new: 13 of 1000 rows read at m.py:3"]


def test_rewrites_limit_what_a_proof_holds_for():
    """A condition of a rewrite may fail: float16 overflows where float64 does not."""
    scope = compared("lambda y, jnp: (y + 1.0) + 2.0", "lambda y, jnp: y + (1.0 + 2.0)").scope
    assert (scope.proved, bool(scope.rewrites)) == (True, True)
    assert scope.text.startswith(f"every value, up to the rewrites {scope.rewrites[0]}")


def test_a_widened_budget_is_part_of_the_scope():
    assert "every budget times 10" in Scope({"x": "float32[2]"}, {"f": ("x",)}, ("call",), 5, budget_factor=10.0).text
