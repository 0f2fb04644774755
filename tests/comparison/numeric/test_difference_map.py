"""How a difference is spread: counted in ulps, drawn as a map, and recognised where it is something simple."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from equiv.comparison.numeric.difference_map import MAP_COLUMNS, MAP_ROWS, describe_relation, shade_map, ulp_histogram
from equiv.core.results import SHADES, ULP_BINS

FLOATS = st.floats(-1e3, 1e3, width=32)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, max_side=60)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("apart", [0, 1, 2, 3, 5])
def test_a_difference_of_some_ulps_is_counted_in_its_bin(dtype: str, apart: int):
    """In every dtype, at every size."""
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    ones = np.array([1.0, 1.5, 64.0, -0.25], kind)
    moved = (ones.astype("float64") * (1 + 0.0) + apart * _spacing(ones)).astype(kind)
    expected = next(index for index, edge in enumerate(ULP_BINS) if apart <= edge)
    assert ulp_histogram(ones, moved) == tuple(4 if index == expected else 0 for index in range(len(ULP_BINS) + 1))


def _spacing(array: np.ndarray) -> np.ndarray:
    eps = float(ml_dtypes.finfo(array.dtype).eps)
    return eps * 2.0 ** np.floor(np.log2(np.abs(array.astype("float64"))))


@given(arrays.arrays("float32", SHAPES, elements=FLOATS), st.data())
def test_every_element_is_in_one_bin(left: np.ndarray, data: st.DataObject):
    """A zero that became something else is in the last."""
    right = data.draw(arrays.arrays("float32", left.shape, elements=FLOATS))
    counts = ulp_histogram(left, right)
    assert sum(counts) == left.size
    assert counts[0] == int(np.sum(left == right))
    assert counts[-1] >= int(np.sum((left == 0) & (right != 0)))


@given(arrays.arrays("float64", SHAPES, elements=st.floats(0, 1e9)))
def test_a_map_shows_where_differences_are(apart: np.ndarray):
    """No block without a difference is shaded; the largest has the last shade."""
    shades, shape = shade_map(apart)
    matrix = apart.reshape(-1, apart.shape[-1]) if apart.ndim > 1 else apart.reshape(1, -1)
    assert shape == matrix.shape
    assert len(shades) == min(MAP_ROWS, matrix.shape[0])
    assert {len(row) for row in shades} == {min(MAP_COLUMNS, matrix.shape[1])}
    assert ("".join(shades).strip(SHADES[0]) != "") == bool(apart.any())
    assert (SHADES[-1] in "".join(shades)) == bool(apart.any())


def test_a_map_keeps_stripes_and_corners():
    """A column stays a column, whatever the blocks."""
    apart = np.zeros((160, 400))
    apart[:, 100] = 1.0
    apart[159, 399] = 1e-9
    shades, _ = shade_map(apart)
    assert {row.index(SHADES[-1]) for row in shades} == {10}
    assert shades[-1][-1] == SHADES[1]
    assert shades[0].count(SHADES[0]) == MAP_COLUMNS - 1


VALUES = np.random.default_rng(0).normal(size=(5, 6, 6))


@pytest.mark.parametrize(
    ("changed", "stepped", "words"),
    [
        (VALUES * 0, False, "all zero"),
        (VALUES * 2.5, False, "2.5 times the reference"),
        (-VALUES, False, "-1 times the reference"),
        (VALUES + 1, False, "the reference plus 1"),
        (VALUES.swapaxes(-1, -2), False, "the reference transposed"),
        (VALUES[::-1], False, "the reference's values in another order"),
        (np.broadcast_to(VALUES[:1], VALUES.shape), True, "unchanged by every step"),
        (VALUES * 0, True, "unchanged by every step"),
        (VALUES**2, False, ""),
        (VALUES + np.inf, False, ""),
    ],
    ids=[
        "zero",
        "factor",
        "sign",
        "offset",
        "transposed",
        "reordered",
        "unchanged",
        "zero-unchanged",
        "other",
        "infinite",
    ],
)
def test_a_simple_relation_is_described(changed: np.ndarray, stepped: bool, words: str):
    """And no other is."""
    assert describe_relation(VALUES, changed, 1e-12, stepped) == words


def test_a_relation_holds_within_the_budget_only():
    """One element beyond it is enough."""
    doubled = VALUES * 2
    doubled[0, 0, 0] += 1e-3
    assert describe_relation(VALUES, doubled, 1e-2) == "2 times the reference"
    assert describe_relation(VALUES, doubled, 1e-5) == ""


def test_a_constant_says_nothing_of_a_factor_or_an_order():
    """Every constant is a multiple of every other."""
    assert describe_relation(np.ones(9), np.full(9, 3.0), 1e-9) == ""
