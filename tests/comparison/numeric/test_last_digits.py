"""The fit of last digits: few unknowns, at most one digit each, whatever else differs."""

import numpy as np
import pytest

from equiv.comparison.numeric.last_digits import fit_amounts

RNG = np.random.default_rng(5)
RESPONSES = RNG.normal(size=(60, 6)) * 1e6
CURVED = RNG.normal(size=60) * 30


def parts(vector):
    """Three outputs of twenty elements."""
    return np.split(vector, 3)


def differing(true, other=0.0):
    """A difference that vanishes at the true amounts, but for second order and another mistake."""
    return lambda amounts: parts(RESPONSES @ (amounts - true) + CURVED * np.sum((amounts - true) ** 2) + other)


@pytest.mark.parametrize("true", [[0.4, 0, 0, 0, 0, 0], [0, -0.9, 0, 0.2, 0, 0], [0.3, 0.3, -0.3, 0.9, 0, -1]])
def test_the_digits_that_explain_a_difference_are_found(true: list[float]) -> None:
    fit = fit_amounts(differing(np.array(true)), 6)
    np.testing.assert_allclose(fit.amounts, true, atol=1e-6)
    assert sorted(fit.needed) == list(np.flatnonzero(true))


def test_no_digit_moves_by_more_than_one() -> None:
    """So that what is wrong by more stays wrong."""
    difference = differing(np.array([3.0, 0, 0, 0, 0, 0]))
    fit = fit_amounts(difference, 6)
    assert np.all(np.abs(fit.amounts) <= 1)
    assert max(np.max(np.abs(one)) for one in difference(fit.amounts)) > 1e5


def test_a_mistake_elsewhere_hides_no_digit() -> None:
    """It differs in one output by far more than the digit does in the others."""
    other = np.concatenate([RNG.normal(size=20) * 1e9, np.zeros(40)])
    fit = fit_amounts(differing(np.array([0, 0.5, 0, 0, 0, 0]), other), 6)
    assert 1 in fit.needed
    assert fit.amounts[1] == pytest.approx(0.5, abs=0.05)


def test_what_is_within_its_budget_pulls_no_digit() -> None:
    """An output that hardly moves, and whose rounding another amount would lower."""
    moves = np.concatenate([np.full(40, 5e5), np.full(20, 0.4)])

    def difference(amounts):
        return parts(moves * (amounts[0] - 0.2) + np.concatenate([np.zeros(40), np.full(20, 0.9)]))

    assert fit_amounts(difference, 1).amounts[0] == pytest.approx(0.2, abs=2e-6)


def test_what_is_within_its_budget_needs_no_digit() -> None:
    fit = fit_amounts(lambda amounts: parts(RESPONSES @ amounts + np.linspace(-1, 1, 60)), 6)
    assert not fit.needed
    assert not fit.amounts.any()


def test_of_two_equal_numbers_the_first_is_taken() -> None:
    twice = RESPONSES[:, [0, 1, 0]]
    fit = fit_amounts(lambda amounts: parts(twice @ (amounts - np.array([0, 0, 0.5]))), 3)
    assert fit.needed == (0,)


def test_without_unknowns_nothing_is_moved() -> None:
    assert fit_amounts(lambda amounts: parts(np.ones(60) * 9), 0).needed == ()
