"""Which table of one port is which of the other: by float32 rounding, and in few tables."""

import numpy as np
import pytest

from equiv.comparison.numeric.tables import match_table
from equiv.programs.constants import ComputedTable

ANGLES = np.outer(np.arange(6), 100.0 ** (-np.arange(4) / 4))


def computed(array):
    return ComputedTable(array, np.abs(array) * 2.0**-23)


def rounded(array):
    return array.astype("float32").astype("float64")


SINE, COSINE, SLOPES = np.sin(ANGLES), np.cos(ANGLES), computed(ANGLES)
TABLES = [SLOPES, computed(SINE), computed(COSINE)]


@pytest.mark.parametrize("table", [SINE, COSINE, SINE.reshape(4, 6), SINE.ravel()], ids=["sine", "cosine", "2", "1"])
def test_a_rounded_table_is_the_one_in_its_order(table: np.ndarray) -> None:
    np.testing.assert_array_equal(match_table(rounded(table), TABLES), table)


@pytest.mark.parametrize(
    "table",
    [SINE.T, np.stack([SINE, COSINE], -1), np.concatenate([COSINE, SINE], -1)[:3], SINE[1:, :2]],
    ids=["transposed", "interleaved", "a part", "less"],
)
def test_a_rounded_table_in_another_order_is_found(table: np.ndarray) -> None:
    """The sine of a small angle is not taken for the angle."""
    np.testing.assert_array_equal(match_table(rounded(table), TABLES), table)


@pytest.mark.parametrize(
    "table",
    [SINE * (1 + 1e-6), np.sin(ANGLES * 1.000001), SINE + 1e-6, np.where(ANGLES == 2, SINE * 0.999999, SINE)],
    ids=["scaled", "faster", "moved", "one number"],
)
def test_a_table_off_by_a_millionth_is_none_of_them(table: np.ndarray) -> None:
    assert match_table(rounded(table), TABLES) is None


def test_a_table_that_is_not_rounded_needs_no_other() -> None:
    assert match_table(SINE * (1 + 1e-16), TABLES) is None


def test_where_the_other_port_has_none_there_is_none() -> None:
    assert match_table(rounded(SINE), []) is None


def test_a_longer_table_is_matched_where_both_have_numbers() -> None:
    """The other port computes the first three positions alone; the numbers of the others stay."""
    tables = [computed(SINE[:3]), computed(COSINE[:3])]
    assert match_table(rounded(SINE), tables) is None
    found = match_table(rounded(SINE), tables, partly=True)
    np.testing.assert_array_equal(found[:3], SINE[:3])
    np.testing.assert_allclose(found[3:], rounded(SINE)[3:], rtol=2.0**-22)


def test_what_is_matched_partly_moves_by_rounding_alone() -> None:
    wrong = rounded(SINE * (1 + 1e-6))
    found = match_table(wrong, TABLES, partly=True)
    assert found is None or np.all(np.abs(found - wrong) <= 2 * np.spacing(np.abs(wrong).astype("float32")))
