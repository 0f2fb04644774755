"""Probe sensitivity: a leaf without effect, or two that only enter as a sum, are unidentifiable."""

from dataclasses import replace

import helpers
import pytest

from equiv.comparison.sensitivity.probe_sensitivity import measure_sensitivity
from equiv.comparison.stages import open_case, run_reference, start_compiling, trace_ports, try_probes
from equiv.comparison.state import advance

SOURCE = """
from equiv.case import Case
from equiv.layers import parameter


def linen():
    import flax.linen as nn
    import jax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            a, b = (self.param(name, nn.initializers.ones, [3]) for name in "ab")
            w = self.param("w", nn.initializers.ones, [4, 3])
            return FORMULA

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen},
    batch={"x": "float32[5,4]"},
    layers=tuple(parameter(name, linen=name) for name in ("a", "b", "w")),
    steps=2,
)
"""


def detected(formula: str, factor: float = 1.0) -> dict[tuple[str, ...], bool]:
    """Changed leaves to whether an output shows the change, for a model of three leaves."""
    case = replace(helpers.case_from(SOURCE.replace("FORMULA", formula), "adequate"), budget_factor=factor)
    state = replace(open_case(case), in_float64={"linen": frozenset()}, candidates=())
    trials = advance(state, (trace_ports, start_compiling, run_reference, try_probes)).trials
    assert [trial.kind for trial in trials] == ["moved" if len(trial.subject) == 1 else "swapped" for trial in trials]
    return {trial.subject: trial.detected for trial in trials}


def undetected(formula: str) -> list[tuple[str, ...]]:
    return [leaves for leaves, shown in detected(formula).items() if not shown]


def test_every_leaf_is_moved_and_equal_shapes_are_swapped():
    assert detected("(x @ w * a + b) ** 2") == dict.fromkeys((("a",), ("b",), ("w",), ("a", "b")), True)


def test_a_wider_budget_of_the_case_hides_changes():
    """Budgets are those that candidates are compared with, the case's factor included."""
    assert set(detected("(x @ w * a + b) ** 2", factor=1e20).values()) == {False}


@pytest.mark.parametrize(
    "formula",
    ["(x @ w + 0.0 * a) * b", "(x @ w + jax.numpy.zeros_like(a)) * b", "(x @ w + a - a) * b"],
)
def test_a_leaf_that_does_nothing_is_reported(formula):
    assert ("a",) in undetected(formula)
    assert ("b",) not in undetected(formula)


@pytest.mark.parametrize("formula", ["x @ w + (a + b)", "(x @ w + a + b) ** 2", "x @ w * (a * b)"])
def test_a_swap_of_leaves_that_only_enter_together_is_reported(formula):
    """Each has the other's gradient and is moved like it: a port that took one for the other would pass."""
    assert undetected(formula) == [("a", "b")]


def test_a_bias_before_a_softmax_over_its_axis_is_reported():
    assert undetected("jax.nn.softmax(x @ w + a[:1]) * b") == [("a",)]


@pytest.mark.parametrize("name", ["counter", "custom_linear", "stateful_linear", "rnn_scan"])
def test_every_leaf_and_swap_of_a_real_case_is_noticed(name):
    reference = helpers.reference(name)
    prepared = helpers.compiled_reference(name)
    given = reference.observed.samples["0"].native
    trials = measure_sensitivity(prepared, reference.probes, given, reference.noise, 1.0)
    assert trials
    assert [trial for trial in trials if not trial.detected] == []
    assert all(trial.note.startswith("seen in ") for trial in trials)
