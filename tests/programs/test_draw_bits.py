"""Replayed bits: those of every width mean one number, one mask, and the same whole number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.programs.draws import draw_bits
from equiv.programs.program import Draw

DRAW = {width: Draw((4096,), width, "") for width in (8, 16, 32, 64)}
SEEDS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 7))


def uniform(random):
    """Bits to a float in [0, 1), as `jax.random.uniform` does it: the upper ones are the mantissa of one in [1, 2)."""
    width = random.dtype.itemsize * 8
    mantissa, one, float_type = {32: (23, 0x3F800000, "float32"), 64: (52, 0x3FF0000000000000, "float64")}[width]
    shifted = (random >> random.dtype.type(width - mantissa)) | random.dtype.type(one)
    return shifted.view(float_type) - np.ones((), float_type)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_bits_are_the_same_uniform_in_32_and_64_bits(seed):
    """To the spacing of float32: what is below it is drawn too."""
    narrow, wide = uniform(draw_bits(DRAW[32], seed)), uniform(draw_bits(DRAW[64], seed))
    assert np.max(np.abs(wide - narrow.astype("float64"))) < np.finfo("float32").eps
    assert narrow.min() > 0
    assert narrow.max() < 1


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_every_replayed_bit_is_zero_and_one_equally_often(width):
    ones = np.unpackbits(draw_bits(DRAW[width], (1, 2)).view("uint8").reshape(4096, -1), axis=1).sum(0).astype(int)
    spread = 6 * (4096 / 4) ** 0.5  # six standard deviations
    assert len(ones) == width
    assert np.max(np.abs(ones - 2048)) < spread


def test_lower_bits_are_the_same_in_32_and_64_bits():
    """So that `randint` below a power of two is the same number in both."""
    narrow, wide = draw_bits(DRAW[32], (3,)), draw_bits(DRAW[64], (3,))
    np.testing.assert_array_equal(wide.astype("uint32"), narrow)


def test_bits_are_spread_evenly():
    counts = np.histogram(uniform(draw_bits(DRAW[32], (1, 2))), bins=8, range=(0, 1))[0]
    assert counts.min() > 420
    assert counts.max() < 610


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([8, 16, 32]))
def test_a_narrow_draws_bits_are_a_wider_ones_upper_bits(seed, width):
    narrow, wide = draw_bits(DRAW[width], seed), draw_bits(DRAW[64], seed)
    assert narrow.dtype == f"uint{width}"
    np.testing.assert_array_equal(narrow, (wide >> np.uint64(64 - width)).astype(narrow.dtype))


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([0.1, 0.125, 0.25, 0.3, 1 / 3, 0.5, 0.625, 0.9, 0.995]))
def test_dropout_masks_agree_across_widths(seed, rate):
    masks = []
    for width, dtype in ((32, np.float32), (64, np.float64)):
        number = uniform(draw_bits(DRAW[width], seed))
        masks.append((number < dtype(1 - rate), number < dtype(rate), number >= dtype(rate)))
    for narrow, wide in zip(*masks, strict=True):
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("width", [32, 64])
def test_no_number_equals_a_short_rate(width):
    """So that `u < rate` and `u <= rate` are one mask."""
    number = uniform(draw_bits(Draw((2**20,), width, ""), (1, 2)))
    for denominator in (256, 360, 1000):
        near = np.abs(number * denominator - np.round(number * denominator)) / denominator
        assert near.min() > 4 * np.finfo("float32").eps


def test_bits_repeat_for_a_seed_and_differ_between_seeds():
    np.testing.assert_array_equal(draw_bits(DRAW[32], (1, 2)), draw_bits(DRAW[32], (1, 2)))
    assert not np.array_equal(draw_bits(DRAW[32], (1, 2)), draw_bits(DRAW[32], (1, 3)))
