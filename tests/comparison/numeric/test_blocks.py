"""Blocks of like scale: budgets that hold for every element, at the scale of each, with the stated risk."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from equiv.comparison.numeric import blocks
from equiv.comparison.numeric.blocks import (
    ZERO_EXPONENT,
    BlockSamples,
    BlockTally,
    element_responses,
    largest_finite,
    magnitude_exponents,
    measure_blocks,
)
from equiv.core.budget import BUDGET_RISK, Responses, sampling_level

ULP = 2.0**-52
RUNS = 2


def measured(base, condition, rng):
    """Responses of an output with known conditions, and the response of each element."""
    moved = [base + condition * rng.normal(size=base.shape) for _ in range(RUNS)]
    return element_responses(measure_blocks(base, moved), base)


def test_the_sampling_level_is_exceeded_with_the_stated_risk():
    for samples in (1, 2, 8, 16):
        assert (math.sqrt(2 / math.pi) / sampling_level(samples)) ** samples == pytest.approx(BUDGET_RISK)
    assert sampling_level(1000) == 1


def test_the_level_bounds_how_small_all_responses_are():
    """At a risk that can be counted: how often f times the largest of n normal numbers is below one."""
    rng, trials, risk = np.random.default_rng(0), 200_000, 1e-3
    for samples in (2, 4, 8):
        level = math.sqrt(2 / math.pi) * risk ** (-1 / samples)
        largest = np.max(np.abs(rng.normal(size=(trials, samples))), axis=1)
        assert np.mean(level * largest < 1) <= 1.2 * risk


def test_chunks_give_the_responses_of_the_whole(monkeypatch):
    rng = np.random.default_rng(3)
    base = np.append(rng.normal(size=98) * 10.0 ** rng.integers(-6, 6, 98), [0.0, np.inf])
    moved = [base * (1 + 1e-10 * rng.normal(size=100)) for _ in range(RUNS)]
    whole, largest = measure_blocks(base, moved), largest_finite(base)
    elements = element_responses(whole, base.reshape(20, 5))
    monkeypatch.setattr(blocks, "CHUNK", 7)
    assert largest_finite(base) == largest
    assert np.array_equal(element_responses(whole, base.reshape(20, 5)), elements)
    parts = measure_blocks(base, moved)
    assert (parts.largest, parts.exponents) == (whole.largest, whole.exponents)
    assert parts.blocks == pytest.approx(whole.blocks)


def listed_blocks(base, moved):
    """The responses of every block, from the definition: one element after the other."""
    found: dict[int, list[float]] = {}
    for index, value in enumerate(base):
        size = abs(value.item())
        if math.isfinite(size):
            exponent = math.frexp(size)[1] if size else ZERO_EXPONENT
            changes = [abs(value.item() - one[index].item()) for one in moved] or [0.0]
            found.setdefault(exponent, []).extend(one if math.isfinite(one) else 0.0 for one in changes)
    listed = {}
    for exponent, changes in found.items():
        top = max(changes)
        shares = [one / (top or 1.0) for one in changes]
        listed[exponent] = BlockSamples(len(changes), top, sum(x**2 for x in shares), sum(x**4 for x in shares))
    return listed


SPECIAL = {
    "zeros": [0.0, -0.0],
    "below the smallest normal number": [1e-310, 0.0, -3e-320],
    "not finite": [math.inf, -math.inf, math.nan],
    "all of them": [0.0, 1e-310, math.inf, math.nan, 1e308, -1e-300],
    "none": [],
}


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("runs", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex128"])
def test_blocks_are_those_of_their_definition(dtype, runs, special):
    """The largest response, and the sums of squares and fourth powers, of every block and for special values."""
    rng = np.random.default_rng(5)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        base = (rng.normal(size=300) * 2.0 ** rng.integers(-9, 9, 300)).astype(jnp.dtype(dtype))
        moved = [(base * (1 + 0.01 * rng.normal(size=300) * rng.integers(0, 2, 300))) for _ in range(runs)]
        moved = [one.astype(base.dtype) for one in moved]
        for array in (base, *moved):
            for value in SPECIAL[special]:
                array[rng.integers(0, 300, 20)] = np.array(value).astype(base.dtype)
        expected, tally = listed_blocks(base, moved), BlockTally().add(base, moved)
    assert tally.blocks.keys() == expected.keys()
    for exponent, known in expected.items():
        found = tally.blocks[exponent]
        assert (found.count, found.top) == (known.count, pytest.approx(known.top, rel=1e-12, abs=0)), exponent
        assert (found.second, found.fourth) == pytest.approx((known.second, known.fourth), rel=1e-12), exponent
    assert tally.largest == max((one.top for one in tally.blocks.values()), default=0.0)


@pytest.mark.parametrize("runs", [1, 2, 7])
def test_what_few_runs_move_is_no_more_than_all_allow(runs):
    """With zeros, blocks of few elements and elements that seldom move, in every block and of every element."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        base = np.append(rng.normal(size=60) * 10.0 ** rng.integers(-6, 6, 60), np.zeros(4))
        moved = [base + 1e-9 * rng.normal(size=64) ** 5 * (rng.random(64) < 0.3) for _ in range(8)]
        few = blocks.BlockTally().add(base, moved[:runs]).observed
        all_runs = blocks.BlockTally().add(base, moved[:runs]).add(base, moved[runs:]).responses
        assert all_runs.blocks == pytest.approx(measure_blocks(base, moved).blocks)
        assert few.exponents == all_runs.exponents
        assert few.largest <= all_runs.largest
        assert np.all(np.array(few.blocks) <= np.array(all_runs.blocks))
        assert np.all(element_responses(few, base) <= element_responses(all_runs, base))


SCALES = {
    "one scale": lambda rng, size: np.ones(size),
    "relative to the element": lambda rng, size: 10.0 ** rng.uniform(-6, 6, size),
    "two groups": lambda rng, size: rng.choice([1.0, 1e12], size),
    "one giant": lambda rng, size: np.where(np.arange(size) == 0, 1e30, 1.0),
    "one dwarf": lambda rng, size: np.where(np.arange(size) == 0, 1e-9, 1.0),
}


@pytest.mark.parametrize("size", [2, 5, 40, 1000])
@pytest.mark.parametrize("name", SCALES)
def test_no_response_is_far_below_the_condition(name, size):
    """Elements small by chance have the condition of the others, so that blocks mix conditions."""
    rng, trials = np.random.default_rng(1), 100
    below = 0
    for _ in range(trials):
        scale = SCALES[name](rng, size)
        base = scale * rng.normal(size=size)
        responses = measured(base, 1e-10 * scale, rng)
        # The output as a whole is an upper bound of every budget, as it is for an output of one element.
        short = np.where(responses == np.max(responses), 1.0, responses / (1e-10 * scale))
        below += int(np.sum(short < 0.5))
        assert np.min(short) > 1e-3
    assert below <= 1e-4 * trials * size


def test_a_large_element_widens_no_other_budget():
    rng = np.random.default_rng(0)
    base = np.concatenate([rng.normal(size=50), np.full(10, -1e30)])
    responses = measured(base, np.where(np.abs(base) > 1e3, 0, 1e-14), rng)
    assert np.max(responses[:50]) < 1e-12
    assert np.all(responses[50:] >= 1e30 * ULP)


def test_elements_small_by_chance_have_the_response_of_their_neighbours():
    """A cancelled sum errs like the sums beside it, although it may not move in either run."""
    rng = np.random.default_rng(2)
    base = rng.normal(size=200)
    base[:3] = 1e-12, 3e-9, -2e-7
    moved = [base + 1e-13 * rng.normal(size=200) for _ in range(RUNS)]
    for one in moved:
        one[:3] = base[:3]
    assert np.all(element_responses(measure_blocks(base, moved), base)[:3] > 1e-13)


def test_many_elements_that_never_move_have_their_own_ulp():
    """Few of them may have stayed by chance."""
    for count, expected in ((50, 8 * ULP), (2, 1e12 * ULP)):
        base = np.append(np.full(count, 8.0), 1e12)
        responses = element_responses(measure_blocks(base, [base, base]), base)
        assert responses[0] == expected


def test_one_element_that_moves_alone_speaks_for_no_block():
    """Its two responses say little about how far it may move: the budget of the whole counts."""
    rng = np.random.default_rng(3)
    base = np.append(rng.uniform(1, 2, size=500), 1e12)
    condition = np.full(501, 1e-15)
    condition[7] = 1e-6
    condition[500] = 1e-3
    known = measure_blocks(base, [base + condition * rng.normal(size=501) for _ in range(RUNS)])
    assert element_responses(known, base)[7] == known.largest


def test_zeros_have_the_block_of_the_smallest_others():
    base = np.array([0.0] * 20 + [1.0] * 20 + [1e20] * 20)
    rng = np.random.default_rng(4)
    responses = measured(base, 1e-15 * base, rng)
    assert np.all(responses[:20] == responses[20])
    assert responses[20] < 1e-13


def test_values_not_finite_have_no_part_in_blocks():
    base = np.array([1.0, -math.inf, math.nan, 2.0] * 8)
    known = measure_blocks(base, [base * (1 + ULP), base * (1 - ULP)])
    assert (known.exponents, known.largest) == ((1, 2), pytest.approx(2 * ULP))
    assert np.isfinite(element_responses(known, base)).all()


def test_nothing_measured_is_an_ulp_of_the_largest():
    assert element_responses(Responses(), np.array([1.0, 4.0])).tolist() == [4 * ULP, 4 * ULP]


def test_no_element_has_more_than_the_output_as_a_whole():
    rng = np.random.default_rng(5)
    base = rng.normal(size=100)
    known = measure_blocks(base, [base + 1e-9 * rng.normal(size=100)])
    assert np.max(element_responses(known, base)) <= known.largest


def test_magnitudes_belong_to_the_next_power_of_two():
    given = np.array([0.0, 1.0, 1.5, -2.0, 0.25, 2.0**-1022, 2.0**-1030])
    assert magnitude_exponents(given).tolist() == [ZERO_EXPONENT, 1, 1, 2, -1, -1021, -1029]


@pytest.mark.parametrize("power", [-40, 17])
def test_a_power_of_two_scales_every_response(power):
    rng = np.random.default_rng(6)
    base = 10.0 ** rng.uniform(-6, 6, 300)
    moved = [base * (1 + ULP * rng.choice([-1, 1], 300)) for _ in range(RUNS)]
    plain = element_responses(measure_blocks(base, moved), base)
    scale = 2.0**power
    scaled = element_responses(measure_blocks(base * scale, [one * scale for one in moved]), base * scale)
    assert (scaled == plain * scale).all()


def test_complex_numbers_have_the_budgets_of_their_absolute_values():
    rng = np.random.default_rng(3)
    turns, sizes = np.exp(2j * np.pi * rng.uniform(size=100)), 2.0 ** rng.integers(-20, 20, size=100)
    base = sizes * turns
    moved = [base + ULP * sizes * np.exp(2j * np.pi * rng.uniform(size=100)) for _ in range(RUNS)]
    known = measure_blocks(base, moved)
    found = element_responses(known, base)
    assert np.all((ULP * sizes <= found) & (found <= 1e6 * ULP * sizes))
    np.testing.assert_array_equal(found, element_responses(known, np.abs(base)))
    assert largest_finite(base) == pytest.approx(sizes.max())
