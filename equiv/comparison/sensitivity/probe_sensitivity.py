"""Probe sensitivity: changing any leaf, or swapping two of one shape, must change an output by more than its budget.

Default-initialised parameters fail this: their zeros and ones hide half of all swapped leaves.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Outputs, RoundingNoise
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.output_name import OutputName
from equiv.core.results import ProbeTrial, TrialKind
from equiv.programs.compiled import run_executable
from equiv.programs.probes import NamedArrays, Probe, ulp


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
    finite = {name: array for name, array in base.items() if np.isfinite(array).all()}
    budgets = {name: _output_budget(name, array, noise, factor) for name, array in finite.items()}
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
    kind: TrialKind, leaves: tuple[str, ...], outputs: Outputs, base: Outputs, budgets: Mapping[OutputName, float]
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


def _output_budget(name: OutputName, array: np.ndarray, noise: RoundingNoise, factor: float) -> float:
    size = ulp(array.dtype) if str(array.dtype) in FLOAT_DTYPES else 0.0
    largest = float(np.max(np.abs(array.astype("float64")), initial=0.0))
    response = rounding_response(noise.native.get("0", {}).get(name, 0.0), size, largest)
    return response * rounding_growth(noise.depth.get(name, 1), factor)


def _change_over_budget(before: np.ndarray, after: np.ndarray, budget: float) -> float:
    """Compute the change of an output over its budget; infinite where the budget is zero or the change NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = float(np.max(np.abs(after.astype("float64") - before.astype("float64")), initial=0.0))
    if math.isnan(difference):
        return math.inf
    if not difference:
        return 0.0
    return difference / budget if budget else math.inf
