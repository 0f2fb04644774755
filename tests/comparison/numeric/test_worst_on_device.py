"""Worst elements found in compiled code are those that NumPy finds."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.comparison.numeric import worst_on_device
from equiv.comparison.numeric.blocks import element_responses, largest_finite, measure_blocks
from equiv.comparison.numeric.budgets import BudgetRule, Budgets, add_distance, limit_finite
from equiv.comparison.numeric.difference import worst_element
from equiv.comparison.numeric.worst_on_device import find_worst_element, make_device_rule
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import Responses, rounding_response
from equiv.programs.probes import ulp


def find_by_numpy(left, right, rule):
    """What `difference.worst_element` finds with the same budgets."""
    responses = element_responses(rule.known, left, rule.largest)
    budgets = limit_finite(rule.growth, responses)
    whole = rule.growth * rounding_response(rule.known.largest, ulp(left.dtype), rule.largest)
    budgets = np.maximum(budgets, min(rule.zero, whole)) if rule.zero else budgets
    found = Budgets(responses, budgets, rule.zero)
    if rule.distance is not None:
        found = add_distance(found, rule.distance, left, rule.largest)
    return worst_element((left, right), found)


def make_arrays(seed, dtype, size, share):
    """Two arrays of many magnitudes and both signs, zeros among them, that differ by some ulps in a share of them."""
    rng = np.random.default_rng(seed)
    spread = 4 if dtype == "float16" else 20
    left = (rng.normal(size=size) * 2.0 ** rng.integers(-spread, spread, size)).astype(dtype)
    left[rng.random(size) < 0.1] = 0
    moved = left.astype("float64") * (1 + ulp(left.dtype) * rng.integers(-9, 9, size) * (rng.random(size) < share))
    return left, (moved + (rng.random(size) < share / 2) * 1e-3).astype(dtype)


@settings(deadline=None)  # the first of each size is compiled
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(FLOAT_DTYPES),
    size=st.sampled_from([1, 7, 2**15, 2**15 + 1, 50_000]),
    share=st.sampled_from([0.0, 0.001, 1.0]),
    zero=st.sampled_from([0.0, 1e-3]),
    kinds=st.tuples(st.booleans(), st.booleans()),
)
def test_compiled_code_finds_the_same_element(seed, dtype, size, share, zero, kinds):
    """Its error, budget, response and values, to the last bit."""
    left, right = make_arrays(seed, dtype, size, share)
    moved = (left.astype("float64") * (1 + ulp(left.dtype))).astype(dtype)
    known = measure_blocks(left, [moved]) if kinds[0] else Responses()
    distance = measure_blocks(left, [right]) if kinds[1] else None
    rule = BudgetRule(known, largest_finite(left), 7.5, zero, distance)
    found = find_worst_element((left, right), make_device_rule(rule, left.dtype))
    assert found is not None
    expected = find_by_numpy(left, right, rule)
    assert replace(found, largest=expected.largest) == expected


@pytest.mark.parametrize("size", [2, 2**15 + 2])
def test_a_later_part_may_be_worst(size, monkeypatch):
    monkeypatch.setattr(worst_on_device, "SIZES", (2**14, 2**12))
    left, right = np.ones(size, "float32"), np.ones(size, "float32")
    right[size // 2], right[-1] = 1.25, 1.5
    rule = make_device_rule(BudgetRule(Responses(), 1.0, 1.0, 0.0), left.dtype)
    found = find_worst_element((left, right), rule)
    assert found is not None
    assert (found.index, found.error, found.candidate) == ((size - 1,), 0.5, "1.5")


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_differences_of_subnormal_numbers_are_left_to_numpy(dtype):
    """Compiled code takes them for zero: what differs would be called equal."""
    for size in (1, 2):
        left = np.zeros(size, dtype)
        right = np.full(size, ml_dtypes.finfo(dtype).smallest_subnormal, dtype)
        rule = make_device_rule(BudgetRule(Responses(), 1.0, 1.0, 0.0), left.dtype)
        found = find_worst_element((left, right), rule)
        assert found is None or found.error > 0


def test_without_a_cpu_it_is_left_to_numpy(monkeypatch):
    monkeypatch.setattr(worst_on_device, "_find_cpu", lambda: None)
    array = np.ones(2, "float32")
    rule = make_device_rule(BudgetRule(Responses(), 1.0, 1.0, 0.0), array.dtype)
    assert find_worst_element((array, array), rule) is None
