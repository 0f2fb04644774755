"""A part of a packed leaf that the other port lacks, held at a value: the other parts are compared like any leaf."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
from conversion import found_models as models

from equiv.comparison.pipeline import run_case
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def result_of(case: Case) -> CaseResult:
    """The result of a case."""
    return run_case(LoadedCase("held", "", case))


class WrongParts(models.Packed):
    """Query and key are both the query."""

    def __call__(self, x):
        query, _, value = jnp.split(self.qkv(x), 3, axis=-1)
        return query * query + value


def test_ports_are_the_same_where_the_part_is_held():
    """Outputs, gradients and training of the two parts that both have, under the condition that is said."""
    found = result_of(models.packed(models.adam))
    assert found.verdicts == {"nnx": "same"}
    assert found.scope is not None
    assert "value/kernel of nnx is 0" in found.scope.condition


def test_a_mistake_in_another_part_is_found():
    """The columns of the query in the place of those of the key."""
    case = models.packed()
    wrong = replace(case, models={**case.models, "nnx": WrongParts}, checks=("outputs",))
    assert result_of(wrong).verdicts == {"nnx": "different"}
