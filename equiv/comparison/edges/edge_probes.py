"""The edge probes of a case: what is in them, made from an ordinary probe. NumPy only.

Whole numbers of all of them begin with the ends of their range and with what the programs compare with, and go through
all others from one probe to the next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from equiv.comparison.observation import EdgeProbe
from equiv.core.batch_spec import INEXACT_DTYPES, BatchEntry
from equiv.core.leaves import LeafTable
from equiv.programs.probes import NamedArrays, Probe, widen_array

ZERO_INPUTS = "zero inputs"
"""Name of the probe with inputs and biases of zero, and kernels as ever."""

ONE_NUMBER = "one number in every row"
"""Name of the probe whose rows of whole numbers are each one number: all padding, or none."""

SMALL_INPUTS = (1e-14, 1e-2)
"""Factors on the first and the last row of small inputs: their squares are still normal numbers in float32."""

SMALL_GRADIENTS = (1e-17, 1e-5)
"""Factors on the first and the last batch of small gradients: where the epsilon of an optimizer counts."""

LATE_STEPS = (10, 100, 1000, 100_000)
"""Numbers of steps after which every schedule is tried."""

MOST_LATE_STEPS = 24
"""Most numbers of steps that counters are set to; a probe has as many as the case has train steps."""

NEXT_TO = 1.25
"""How far beyond a threshold the values of a probe go that is made for it, as a factor, if nothing is nearer."""


def scale_probe(probe: Probe, table: LeafTable, factor: float, inputs: bool = True) -> Probe:
    """Scale the float inputs of a probe, or else its parameters.

    Args:
        probe: the probe.
        table: the leaf table of the reference.
        factor: the factor.
        inputs: scale the inputs; False: the parameters that have an axis.
    """

    def scaled(array: np.ndarray) -> np.ndarray:
        is_float = str(array.dtype) in INEXACT_DTYPES
        return (widen_array(array) * factor).astype(array.dtype) if is_float else array

    if inputs:
        return replace(probe, batches=probe.vary_batches(scaled))
    changed = {name: scaled(array) for name, array in probe.variables.items() if _is_parameter(table, name, array)}
    return replace(probe, variables={**probe.variables, **changed})


def small_inputs(probe: Probe, table: LeafTable) -> Probe:
    """Make rows of small inputs of several sizes, which no bias hides: where an epsilon or a rescue counts."""

    def scaled(array: np.ndarray) -> np.ndarray:
        is_float = str(array.dtype) in INEXACT_DTYPES
        return (array * _row_factors(array)).astype(array.dtype) if is_float else array

    return replace(
        probe, name="small inputs", batches=probe.vary_batches(scaled), variables=_without_biases(probe, table)
    )


def _row_factors(array: np.ndarray) -> np.ndarray:
    """A factor for every row of a batch; the first axis of the array is the train step."""
    rows = array.shape[1] if array.ndim > 1 else 1
    return np.geomspace(*SMALL_INPUTS, rows).reshape(rows, *(1,) * max(0, array.ndim - 2))


def small_gradients(probe: Probe, table: LeafTable) -> Probe:
    """Make batches of small inputs, the smallest first, since an optimizer remembers the larger ones."""
    factors = np.geomspace(*SMALL_GRADIENTS, len(next(iter(probe.batches.values()))))

    def scaled(array: np.ndarray) -> np.ndarray:
        is_float = str(array.dtype) in INEXACT_DTYPES
        return (array * factors.reshape(-1, *(1,) * (array.ndim - 1))).astype(array.dtype) if is_float else array

    return replace(
        probe, name="small gradients", batches=probe.vary_batches(scaled), variables=_without_biases(probe, table)
    )


def zero_inputs(probe: Probe, table: LeafTable, kernels: bool) -> Probe:
    """Make inputs and biases zero, so that what is linear is a tie at zero; every other input is -0.0.

    Args:
        probe: the probe.
        table: the leaf table of the reference.
        kernels: make kernels zero too.
    """
    signs = probe.vary_batches(_alternate)
    variables = _without_biases(probe, table)
    if kernels:
        variables |= {
            name: np.zeros_like(array)
            for name, array in variables.items()
            if _is_parameter(table, name, array) and not _is_scale(name)
        }
    return replace(probe, name="zeros" if kernels else ZERO_INPUTS, batches=signs, variables=variables)


def _alternate(array: np.ndarray) -> np.ndarray:
    if str(array.dtype) not in INEXACT_DTYPES:
        return array
    zeros = np.zeros(array.size, array.dtype)
    zeros[1::2] = -zeros[1::2]
    return zeros.reshape(array.shape)


def exact_values(probe: Probe, table: LeafTable, numbers: Sequence[float]) -> Probe:
    """Make inputs and biases of given numbers and kernels zero, so that these numbers arrive exactly."""

    def cycle(array: np.ndarray) -> np.ndarray:
        return np.resize(np.array(numbers), array.shape).astype(array.dtype)

    batches = probe.vary_batches(lambda array: cycle(array) if str(array.dtype) in INEXACT_DTYPES else array)
    variables = dict(probe.variables)
    for name, array in probe.variables.items():
        if _is_parameter(table, name, array) and not _is_scale(name):
            variables[name] = cycle(array) if _is_added(name, array) else np.zeros_like(array)
    return replace(probe, name="thresholds", batches=batches, variables=variables)


def exact_numbers(bounds: Iterable[float], shared: Iterable[float]) -> tuple[float, ...]:
    """What to try of thresholds: each that ports share, a number between each two, and beyond the first and the last.

    Args:
        bounds: of all ports. Exactly at one that only one port has, the other may have to round to see it.
        shared: those that all ports have.
    """
    known = sorted({0.0, *bounds})
    between = [(one + other) / 2 for one, other in pairwise(known)]
    ends = [known[0] * NEXT_TO - 1, known[-1] * NEXT_TO + 1]
    return (0.0, *sorted({*shared} - {0.0}), *between, *ends)


def _without_biases(probe: Probe, table: LeafTable) -> NamedArrays:
    """The leaves with zeros for what is added, and for embeddings, which are inputs of what follows."""
    added = {
        name: np.zeros_like(array)
        for name, array in probe.variables.items()
        if _is_parameter(table, name, array) and (_is_added(name, array) or "embed" in name)
    }
    return {**probe.variables, **added}


def _is_parameter(table: LeafTable, name: str, array: np.ndarray) -> bool:
    """Whether a leaf is a parameter that may have any value: a single number may be a temperature."""
    return array.ndim > 0 and table[name].spec.collection == "params" and str(array.dtype) in INEXACT_DTYPES


def _is_added(name: str, array: np.ndarray) -> bool:
    """Whether a leaf is added to what a layer computes, as biases are."""
    return name.rsplit("/", 1)[-1].startswith("bias") or (array.ndim == 1 and not _is_scale(name))


def _is_scale(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith("scale")


def late_probes(probe: Probe, near: Iterable[int], steps: int, rounds: int = 1) -> list[EdgeProbe]:
    """Make probes that set the counters of training: around what the train steps compare them with, and late.

    Args:
        probe: the probe whose leaves and batches they train.
        near: the numbers of steps after which a counter is near what a train step compares it with; the first count.
        steps: number of train steps of the case.
        rounds: number of steps of a round, in the last of which parameters are updated.
    """
    late = [one - one % rounds + rounds - 1 for one in LATE_STEPS]
    around = [one for one in dict.fromkeys(near) if one not in late]
    numbers = sorted({*around[: MOST_LATE_STEPS - len(late)], *late})
    rows = [numbers[first : first + steps] for first in range(0, len(numbers), steps)]
    return [
        EdgeProbe(
            # The last row is filled with what it begins with.
            replace(probe, name=f"counters {_range_text(row)}", late=tuple(np.resize(row, steps).tolist())),
            calls=False,
            training=True,
        )
        for row in rows
    ]


def _range_text(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def with_whole_numbers(
    probes: Sequence[EdgeProbe], entries: Mapping[str, BatchEntry], literals: Iterable[int]
) -> list[EdgeProbe]:
    """Give whole numbers of all probes the ends of their range, what programs compare with, and then all others.

    Args:
        probes: the probes.
        entries: the batch of the case.
        literals: whole numbers that the programs compare with.
    """
    known = sorted(literals)
    changed = list(probes)
    for name, entry in entries.items():
        if entry.spec.dtype in INEXACT_DTYPES or entry.spec.dtype == "bool" or entry.kept is not None:
            continue
        last = entry.bound - 1
        first = dict.fromkeys((0, last, *(one + move for one in known for move in (0, -1, 1) if 0 < one + move < last)))
        size = probes[0].probe.batches[name].size if probes else 0
        others = [one for one in range(min(entry.bound, len(first) + size * len(probes))) if one not in first]
        order, used = np.array([*first, *others]), 0
        for index, one in enumerate(changed):
            array = one.probe.batches[name]
            numbers = order[(used + np.arange(array.size)) % len(order)]
            if one.probe.name == ONE_NUMBER:
                # The first axis is the train step, the second the row: the first row is padding where 0 is.
                rows = int(np.prod(array.shape[:2]))
                numbers = np.repeat(order[np.arange(rows) % len(order)], array.size // max(rows, 1))
            else:
                used += array[0].size
            batches = {**one.probe.batches, name: numbers.reshape(array.shape).astype(array.dtype)}
            changed[index] = replace(one, probe=replace(one.probe, batches=batches))
    return changed
