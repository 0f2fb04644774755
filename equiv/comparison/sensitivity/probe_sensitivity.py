"""Probe sensitivity: changing any leaf, or swapping two of one shape, must change an output by more than its budget.

Default-initialised parameters fail this: their zeros and ones hide half of all swapped leaves.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from equiv.comparison.numeric.blocks import element_responses, finite_difference
from equiv.comparison.numeric.budgets import find_responses, limit_finite, over_budget
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Outputs, RoundingNoise
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import rounding_growth
from equiv.core.output_name import OutputName
from equiv.core.results import ProbeTrial, TrialKind
from equiv.programs.compiled import run_executable
from equiv.programs.probes import NamedArrays, Probe


def measure_sensitivity(
    compiled: CompiledPort, probes: tuple[Probe, ...], base: Outputs, noise: RoundingNoise, factor: float
) -> tuple[ProbeTrial, ...]:
    """Measure whether the first probe shows a change of each leaf, and a swap of each two leaves of one shape.

    Args:
        compiled: the compiled reference.
        probes: its probes; the first is changed.
        base: the outputs of the reference on it.
        noise: how rounding moves the reference.
        factor: the case's `budget_factor`.
    """
    probe = probes[0]
    budgets = {name: _output_budgets(name, array, noise, factor) for name, array in base.items()}
    changes = [*(("moved", *one) for one in _move_leaves(probe)), *(("swapped", *one) for one in _swap_leaves(probe))]
    return tuple(
        _try_change(kind, leaves, run_executable(compiled.native, changed), base, budgets)
        for kind, leaves, changed in changes
    )


def _move_leaves(probe: Probe) -> Iterator[tuple[tuple[str], Probe]]:
    for leaf, array in probe.variables.items():
        # A different factor for every element: a normalisation would hide a common one.
        factors = np.linspace(1.25, 1.75, num=array.size).reshape(array.shape)
        changed = array * factors + 0.125 if str(array.dtype) in FLOAT_DTYPES else array + 1
        yield (leaf,), _with_variables(probe, {leaf: changed.astype(array.dtype)})


def _swap_leaves(probe: Probe) -> Iterator[tuple[tuple[str, str], Probe]]:
    for one, other in combinations(probe.variables, 2):
        first, second = probe.variables[one], probe.variables[other]
        if first.shape == second.shape and first.dtype == second.dtype:
            yield (one, other), _with_variables(probe, {one: second, other: first})


def _with_variables(probe: Probe, changed: NamedArrays) -> Probe:
    return replace(probe, variables={**probe.variables, **changed})


def _try_change(
    kind: TrialKind, leaves: tuple[str, ...], outputs: Outputs, base: Outputs, budgets: Mapping[OutputName, np.ndarray]
) -> ProbeTrial:
    """Judge whether a changed probe moves an output.

    The trained value of the moved leaf itself does not count: it changes even if the model does not use the leaf.
    """
    shown, ratio = "", 0.0
    for name, budget in budgets.items():
        # A port that swaps two leaves swaps them in its outputs, too.
        other = _swap_leaf_names(name, leaves[0], leaves[-1])
        if other not in outputs or (name.kind == "leaf" and leaves == (name.leaf,)):
            continue
        found = _change_over_budget(base[name], outputs[other], budget)
        if found > ratio:
            shown, ratio = str(name), found
    if ratio > 1:
        return ProbeTrial(kind, leaves, True, ratio if math.isfinite(ratio) else None, f"seen in {shown}")
    note = "it changes no output, gradient, state or train step by more than its budget"
    return ProbeTrial(kind, leaves, False, ratio, note)


def _swap_leaf_names(name: OutputName, one: str, other: str) -> OutputName:
    """Swap two leaves in the name of an output."""
    return replace(name, leaf={one: other, other: one}.get(name.leaf, name.leaf))


def _output_budgets(name: OutputName, array: np.ndarray, noise: RoundingNoise, factor: float) -> np.ndarray:
    if str(array.dtype) not in FLOAT_DTYPES:
        return np.zeros(array.shape)
    responses = element_responses(find_responses(noise, "0", name, in_float64=False), array)
    return limit_finite(rounding_growth(noise.depth.get(name, 1), factor), responses)


def _change_over_budget(before: np.ndarray, after: np.ndarray, budgets: np.ndarray) -> float:
    """Compute the largest change of an output over its budget; infinite where a budget is zero or the change NaN."""
    difference = finite_difference(before.astype("float64"), after.astype("float64"))
    worst = np.max(over_budget(np.where(np.isnan(difference), np.inf, difference), budgets), initial=0.0)
    return float(worst)
