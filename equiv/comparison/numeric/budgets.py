"""The rounding budget of every element of one output; see `equiv.core.budget`. NumPy only."""

from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import element_responses, largest_finite
from equiv.comparison.numeric.held_outputs import largest_value
from equiv.comparison.observation import Comparison, RoundingNoise, Sample
from equiv.core.budget import Responses, rounding_growth, rounding_response
from equiv.core.output_name import OutputName
from equiv.programs.probes import ulp


@dataclass(frozen=True)
class Budgets:
    """The budgets of one output on one probe, in one precision.

    Attributes:
        responses: of every element, to one ulp in every input.
        elements: the budget of every element.
        zero: a gradient up to this size is zero in theory: noise next to the gradient of the whole model.
    """

    responses: np.ndarray
    elements: np.ndarray
    zero: float


@dataclass(frozen=True)
class BudgetRule:
    """What gives every element of one output its budget, in one precision: its magnitude decides.

    Attributes:
        known: the response of the output.
        largest: the largest finite magnitude of the reference's whole output.
        growth: how many times the response a budget is.
        zero: see `Budgets`; 0 of all but gradients.
        distance: how far the reference's native values are from its float64 run, which is rounding, too; None: it is
            not asked.
    """

    known: Responses
    largest: float
    growth: float
    zero: float
    distance: Responses | None = None


def budget_rule(
    comparison: Comparison, probe: str, output: OutputName, dtype: np.dtype, in_float64: bool, largest: float
) -> BudgetRule:
    """Look up what gives the budgets of an output of some dtype; other arguments as of `output_budgets`."""
    growth = rounding_growth(comparison.noise.depth.get(output, 1), comparison.case.budget_factor)
    zero = _model_gradient_scale(comparison.reference.samples[probe], output, in_float64) * ulp(dtype) * growth
    return BudgetRule(find_responses(comparison.noise, probe, output, in_float64), largest, growth, zero)


def output_budgets(
    comparison: Comparison,
    probe: str,
    output: OutputName,
    arrays: ArrayPair,
    in_float64: bool,
    largest: float | None = None,
) -> Budgets:
    """Compute the budget of every element: of the worse conditioned port, where that was measured.

    Args:
        comparison: of which the noise is used.
        probe: the probe.
        output: the output of the reference.
        arrays: its value in both ports, or a part of it, of one shape and float dtype.
        in_float64: whether they are those of the float64 runs.
        largest: the largest finite magnitude of the reference's whole output; None: the arrays are the whole.
    """
    left, _ = arrays
    is_whole = largest is None
    most = largest_finite(left) if largest is None else largest
    rule = budget_rule(comparison, probe, output, left.dtype, in_float64, most)
    known, largest, growth, zero = rule.known, rule.largest, rule.growth, rule.zero
    responses = element_responses(known, left, largest)
    for noise, array in zip(comparison.own_rounding, arrays, strict=True):
        if noise is not None:
            found = (noise.float64 if in_float64 else noise.native).get(probe, {}).get(output)
            whole = None if is_whole else largest
            responses = responses if found is None else np.maximum(responses, element_responses(found, array, whole))
    budgets = limit_finite(growth, responses)
    if zero:
        # Gradients are sums of what flows back through the whole model, in which those of this size are noise.
        whole = growth * rounding_response(known.largest, ulp(left.dtype), largest)
        budgets = np.maximum(budgets, min(zero, whole))
    return Budgets(responses, budgets, zero)


def add_distance(budgets: Budgets, distance: Responses, array: np.ndarray, largest: float | None = None) -> Budgets:
    """Native budgets that allow for the reference's own distance from its float64 run, where it is unstable.

    Args:
        budgets: of the elements of the array.
        distance: that distance, in blocks of the whole output.
        array: the reference's native output, or a part of it.
        largest: as of `element_responses`.
    """
    rounded = limit_finite(2.0, element_responses(distance, array, largest))
    return replace(budgets, elements=np.maximum(budgets.elements, rounded))


def limit_finite(factor: float, array: np.ndarray) -> np.ndarray:
    """A factor times an array, at most the largest float64: a mask may be that large, and JSON has no infinity."""
    with np.errstate(over="ignore"):
        return np.minimum(factor * array, np.finfo("float64").max)


def over_budget(difference: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """Every difference over its budget; infinite where there is one and no budget."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(difference > 0, difference / budgets, 0.0)


def find_responses(noise: RoundingNoise, probe: str, output: OutputName, in_float64: bool) -> Responses:
    """Look up the responses of an output; those of nothing measured where there are none."""
    return (noise.float64 if in_float64 else noise.native).get(probe, {}).get(output, Responses())


def _model_gradient_scale(sample: Sample, output: OutputName, in_float64: bool) -> float:
    """The largest gradient of the whole model: a gradient that is zero in theory is noise relative to it."""
    if output.kind != "gradient":
        return 0.0
    key = output.program, in_float64
    if key not in sample.scales:  # once for all gradients: each has to know it
        outputs = sample.float64 if in_float64 and sample.float64 is not None else sample.native
        sample.scales[key] = max(
            largest_value(outputs, other)
            for other in outputs
            if other.kind == "gradient" and other.program == output.program
        )
    return sample.scales[key]
