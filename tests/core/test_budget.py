"""The rounding budget: its level, its growth, and that its formula stands in one place."""

import math
from pathlib import Path

import numpy as np
import pytest

from equiv.core.budget import BUDGET_LEVEL, BUDGET_RISK, rounding_growth, rounding_response

EQUIV = Path(__file__).parents[2] / "equiv"


def test_the_level_is_exceeded_with_the_stated_risk():
    assert 2 * math.exp(-(BUDGET_LEVEL**2) / 2) == pytest.approx(BUDGET_RISK, rel=1e-9)


@pytest.mark.parametrize("operations", [10, 1000])
@pytest.mark.parametrize("level", [1.0, 2.0, 3.0])
def test_the_theorem_holds_for_random_rounding_errors(operations, level):
    """Theorem 2.4: the product of n factors leaves the bound with probability 2 exp(-l^2 / 2) at most."""
    unit, trials = 2.0**-24, 4000
    errors = np.random.default_rng(0).choice([-unit, unit], size=(trials, operations))
    off = np.abs(np.expm1(np.sum(np.log1p(errors), axis=1)))
    exceeded = np.mean(off > level * math.sqrt(operations) * unit)
    assert exceeded <= 2 * math.exp(-(level**2) / 2)
    # The error does grow like the square root: half a standard deviation is left by most.
    assert np.mean(off > 0.5 * math.sqrt(operations) * unit) > 0.5


def test_growth_is_the_square_root_of_the_depth():
    assert rounding_growth(1) == BUDGET_LEVEL
    assert rounding_growth(400) == pytest.approx(20 * BUDGET_LEVEL)
    assert rounding_growth(4, factor=3.0) == pytest.approx(6 * BUDGET_LEVEL)


def test_an_output_without_operations_counts_as_one():
    assert rounding_growth(0) == rounding_growth(1)


def test_the_response_is_at_least_one_ulp_of_the_largest():
    ulp = 2.0**-23
    assert rounding_response(0.0, ulp, 3.0) == 3 * ulp
    assert rounding_response(1.0, ulp, 3.0) == 1.0


def test_the_formula_stands_in_one_place():
    """Only the text of a finding names the level besides."""
    users = {file.relative_to(EQUIV).as_posix() for file in EQUIV.rglob("*.py") if "BUDGET_LEVEL" in file.read_text()}
    assert users == {"core/budget.py", "report/cells.py"}
