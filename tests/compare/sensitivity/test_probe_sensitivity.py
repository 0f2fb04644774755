"""Probe sensitivity: a leaf without effect, or two that only enter as a sum, are unidentifiable."""

import helpers
import pytest

from equiv.compare.candidates import run_reference
from equiv.compare.numeric.probe_set import PROBE_SEEDS
from equiv.compare.numeric.run_port import compile_port
from equiv.compare.sensitivity.probe_sensitivity import measure_sensitivity
from equiv.programs.built_case import build_case
from equiv.programs.traced_port import trace_port

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


def told(formula: str, factor: float = 1.0) -> dict[str, str]:
    """Place to grade, for a model of three leaves."""
    workshop = build_case(helpers.case_from(SOURCE.replace("FORMULA", formula), "adequate"))
    assert not workshop.problems
    prepared = compile_port(workshop, trace_port(workshop, "linen"), frozenset())()
    reference = run_reference(workshop, prepared, PROBE_SEEDS)
    given = reference.observed.samples["0"].native
    findings = measure_sensitivity(prepared, reference.probes, given, reference.noise, factor)
    return {item.place: item.grade for item in findings}


def unidentifiable(formula: str) -> list[str]:
    return sorted(place for place, grade in told(formula).items() if grade == "unidentifiable")


def test_every_leaf_is_moved_and_equal_shapes_are_swapped():
    assert told("(x @ w * a + b) ** 2") == dict.fromkeys(
        ("moving a", "moving b", "moving w", "swapping a and b"), "exact"
    )


def test_a_wider_budget_of_the_case_hides_changes():
    """Budgets are those that candidates are compared with, the case's factor included."""
    assert set(told("(x @ w * a + b) ** 2", factor=1e20).values()) == {"unidentifiable"}


@pytest.mark.parametrize(
    "formula",
    ["(x @ w + 0.0 * a) * b", "(x @ w + jax.numpy.zeros_like(a)) * b", "(x @ w + a - a) * b"],
)
def test_a_leaf_that_does_nothing_is_reported(formula):
    assert "moving a" in unidentifiable(formula)
    assert "moving b" not in unidentifiable(formula)


@pytest.mark.parametrize("formula", ["x @ w + (a + b)", "(x @ w + a + b) ** 2", "x @ w * (a * b)"])
def test_a_swap_of_leaves_that_only_enter_together_is_reported(formula):
    """Each has the other's gradient and is moved like it: a port that took one for the other would pass."""
    assert unidentifiable(formula) == ["swapping a and b"]


def test_a_bias_before_a_softmax_over_its_axis_is_reported():
    found = unidentifiable("jax.nn.softmax(x @ w + a[:1]) * b")
    assert found == ["moving a"]


@pytest.mark.parametrize("name", ["counter", "custom_linear", "stateful_linear", "rnn_scan"])
def test_every_leaf_and_swap_of_a_real_case_is_noticed(name):
    reference = helpers.reference(name)
    prepared = helpers.compiled_reference(name)
    given = reference.observed.samples["0"].native
    findings = measure_sensitivity(prepared, reference.probes, given, reference.noise, 1.0)
    assert findings
    assert [item for item in findings if item.grade != "exact"] == []
    assert all(item.note.startswith("seen in ") for item in findings)
