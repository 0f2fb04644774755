"""Find the worst element of a large part of an output in compiled code: as `difference.worst_element`, in one pass.

NumPy makes thirty passes over the arrays for it, which cost more than the train step that gave them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from equiv.comparison.numeric import arrays as plain
from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import LARGEST_FLOAT, ZERO_EXPONENT, response_table
from equiv.comparison.numeric.budgets import BudgetRule
from equiv.comparison.numeric.difference import Difference
from equiv.compat import enable_x64
from equiv.core.budget import Responses, rounding_response
from equiv.programs.probes import ulp

SIZES = (2**18, 2**15)
"""Numbers of elements that are compared at once, of which the last part has fewer: each is compiled once."""

LOWEST, HIGHEST = -1074, 1024
"""Exponents of float64 numbers, from that of the smallest to that of the largest; see `magnitude_exponents`."""


@dataclass(frozen=True)
class DeviceRule:
    """What gives every element its budget, as arrays.

    Attributes:
        rule: the same, as numbers.
        dtype: of the output.
        tables: float64[2, HIGHEST - LOWEST + 1]; the response of each exponent, and its distance.
        scalars: float64[7]; see `_find_worst`.
    """

    rule: BudgetRule
    dtype: np.dtype
    tables: np.ndarray
    scalars: np.ndarray


def make_device_rule(rule: BudgetRule, dtype: np.dtype) -> DeviceRule:
    """Make the arrays of a rule for the outputs of one dtype."""
    distance = rule.distance or Responses()
    wholes = [rounding_response(one.largest, ulp(dtype), rule.largest) for one in (rule.known, distance)]
    tables = np.stack([_list_responses(one, whole) for one, whole in zip((rule.known, distance), wholes, strict=True)])
    floor = min(rule.zero, rule.growth * wholes[0]) if rule.zero else 0.0
    tiny, twice = float(ml_dtypes.finfo(dtype).tiny), 0.0 if rule.distance is None else 2.0
    scalars = np.array([*wholes, rule.growth, twice, ulp(dtype), tiny, floor])
    return DeviceRule(rule, dtype, tables, scalars)


@cache
def _find_cpu() -> Any | None:
    """The device on which the outputs are already; None: JAX has no backend for it, as with `JAX_PLATFORMS=tpu`."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def _list_responses(known: Responses, whole: float) -> np.ndarray:
    """The response of every exponent, before it is limited."""
    if not known.exponents:
        return np.full(HIGHEST - LOWEST + 1, whole)
    first, table = response_table(known)
    return table[np.clip(np.arange(LOWEST, HIGHEST + 1), first, first + len(table) - 1) - first]


@jax.jit
def _find_worst(ours: Any, theirs: Any, tables: Any, scalars: Any) -> Any:
    """Index, error, budget and response of the element with the largest error over its budget, of two float arrays."""
    whole, far, growth, twice, size, tiny, floor = scalars
    one, other = ours.astype(jnp.float64), theirs.astype(jnp.float64)
    is_same = (one == other) | (jnp.isnan(one) & jnp.isnan(other))
    error = jnp.where(is_same, 0.0, jnp.abs(one - other))
    magnitude = jnp.where(jnp.isfinite(one), jnp.abs(one), 0.0)
    fields = (jax.lax.bitcast_convert_type(magnitude, jnp.int64) >> 52) & 0x7FF
    places = jnp.clip(jnp.where(magnitude == 0, ZERO_EXPONENT, fields - 1022), LOWEST, HIGHEST) - LOWEST
    stored = jnp.maximum(size * magnitude, tiny)
    response = jnp.minimum(whole, jnp.maximum(tables[0][places], stored))
    distance = jnp.minimum(far, jnp.maximum(tables[1][places], stored))
    budget = jnp.maximum(jnp.minimum(growth * response, LARGEST_FLOAT), floor)
    budget = jnp.maximum(budget, jnp.minimum(twice * distance, LARGEST_FLOAT))
    worst = jnp.argmax(jnp.where(error > 0, error / budget, 0.0))
    return jnp.stack([worst.astype(jnp.float64), error[worst], budget[worst], response[worst]])


def find_worst_element(arrays: ArrayPair, rule: DeviceRule) -> Difference | None:
    """Find the element with the largest error over its budget.

    Args:
        arrays: the output of both ports or a part of it, of one shape and of the rule's dtype, a real one.
        rule: what gives the budgets.

    Returns:
        The worst element, its index that of the flat array, without the largest value of the arrays; None: they differ
        by numbers below the smallest normal one, which compiled code takes for zero, or there is no CPU to run it on.
    """
    cpu = _find_cpu()
    if cpu is None:
        return None
    left, right = (one.ravel() for one in arrays)
    is_equal = np.array_equal(left, right)
    if is_equal:
        left, right = left[:1], right[:1]  # any element is the worst
    first, best = 0, np.zeros(4)
    for ours, theirs in _split_padded(left, right):
        with enable_x64(True), jax.default_device(cpu):
            found = np.asarray(_find_worst(ours, theirs, rule.tables, rule.scalars))
        if not first or _ratio(found) > _ratio(best):
            best = found + np.array([first, 0, 0, 0])
        first += len(ours)
    index, error, budget, response = (float(one) for one in best)
    place = int(index)
    if error == 0 and not is_equal:
        return None
    values = plain.element_text(left[place]), plain.element_text(right[place])
    return Difference(error, budget, response, (place,), *values, rule.rule.zero, largest=0.0)


def _ratio(found: np.ndarray) -> float:
    return found[1] / found[2] if found[1] > 0 else 0.0


def _split_padded(left: np.ndarray, right: np.ndarray) -> Iterator[ArrayPair]:
    """Yield the elements in order, in parts of `SIZES`; the last part ends with zeros, which are equal."""
    first, (large, small) = 0, SIZES
    while first < left.size:
        count = large if left.size - first >= large else small
        ours, theirs = left[first : first + count], right[first : first + count]
        missing = count - ours.size
        yield (np.pad(ours, (0, missing)), np.pad(theirs, (0, missing))) if missing else (ours, theirs)
        first += count
