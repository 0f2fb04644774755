"""Judge the outputs of two ports on edge probes. NumPy only.

Ordinary values decide an output both natively and in float64, one after the other. At an edge, rounding may send either
port to the other side, in one precision and not in the other. So a difference counts only where both precisions have
it, and have it alike: what rounding does is some 1e8 times smaller in float64.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import ml_dtypes
import numpy as np

from equiv.comparison.numeric.arrays import ArrayPair, element_text, float64_pair, type_mismatch
from equiv.comparison.numeric.blocks import finite_difference
from equiv.comparison.numeric.budgets import find_responses, output_budgets, over_budget
from equiv.comparison.numeric.fold import RunPair, pair_runs, stream_parts
from equiv.comparison.numeric.held_outputs import largest_value, output_dtype
from equiv.comparison.observation import Comparison, EdgeProbe, Outputs, RoundingNoise, Sample
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName
from equiv.core.results import Finding
from equiv.programs.exercise import Observed
from equiv.programs.probes import ulp, widen_array


@dataclass(frozen=True)
class EdgeDifference:
    """An output that differs on an edge probe.

    Attributes:
        finding: its worst element.
        edge: the probe.
        count: number of elements that differ.
        size: number of all.
        overflows: whether one port alone is not finite there.
    """

    finding: Finding
    edge: EdgeProbe
    count: int
    size: int
    overflows: bool = False

    @property
    def is_remark(self) -> bool:
        """Whether only a gradient differs: exactly at a kink, where there is none, so that what it is there is agreed
        on; or because it overflows where the value does not, as that of `y / (1 + exp(-y))` does."""
        output = self.finding.output
        return (self.edge.exact or self.overflows) and output is not None and output.kind == "gradient"


def judge_edge(comparison: Comparison, edge: EdgeProbe, outputs: Iterable[OutputName]) -> list[EdgeDifference]:
    """Compare outputs on one edge probe; those that agree, or where nothing can be said, are left out.

    Args:
        comparison: both ports, of which samples and noise of the probe are read.
        edge: the probe.
        outputs: what both ports return.
    """
    name = edge.probe.name
    ours, theirs = comparison.reference.samples[name], comparison.candidate.samples[name]
    if edge.guarded and count_ties(ours.exercised) != count_ties(theirs.exercised):
        return []
    wanted = [
        output
        for output in outputs
        if (edge.training if output.program.is_training else edge.calls)
        and output in ours.native
        and output in theirs.native
    ]
    found = _judge_streamed(comparison, edge, wanted)
    for output in wanted:
        if output in found:
            continue
        native, float64 = (ours.native[output], theirs.native[output]), float64_pair(ours, theirs, output, output)
        if type_mismatch(*native) is None and (float64 is not None or not edge.exact):
            found[output] = _judge_arrays(comparison, edge, output, native, float64)
    return [one for output in wanted if (one := found.get(output)) is not None]


def _judge_streamed(
    comparison: Comparison, edge: EdgeProbe, wanted: Iterable[OutputName]
) -> dict[OutputName, EdgeDifference | None]:
    """Judge large outputs part by part, as both ports compute them; None: they agree."""
    name = edge.probe.name
    ours, theirs = comparison.reference.samples[name], comparison.candidate.samples[name]
    native, float64 = pair_runs(ours.native, theirs.native), pair_runs(ours.float64, theirs.float64)
    if native is None:
        return {}
    streamed = {output for output in wanted if _is_streamed(output, native)}
    twice = {output for output in streamed if float64 is not None and _is_streamed(output, float64)}
    if edge.exact or ours.float64 is not None or theirs.float64 is not None:
        streamed = twice
    found: dict[OutputName, EdgeDifference | None] = {}
    places: dict[OutputName, int] = {}
    runs = [native, *((float64,) if float64 is not None and twice else ())]
    for pair in stream_parts(*runs) if streamed else ():
        for output in streamed & pair[0].keys() & pair[1].keys():
            arrays = pair[0][output], pair[1][output]
            both = (pair[2][output], pair[3][output]) if output in twice else None
            largest = native.ours.large[output].largest, float64.ours.large[output].largest if float64 else 0.0
            first = places.get(output, 0)
            places[output] = first + (len(arrays[0]) if arrays[0].ndim else 0)
            part = _judge_arrays(comparison, edge, output, arrays, both, largest)
            found[output] = _join(found.get(output), part, first, prod(native.ours.large[output].shape))
            del arrays, both
        del pair  # before the next part is computed
    return found


def _is_streamed(output: OutputName, runs: RunPair) -> bool:
    """Whether an output of both runs is large, of one shape and dtype, and no array of it is at hand."""
    one, other = runs.ours.large.get(output), runs.theirs.large.get(output)
    at_hand = output in runs.ours.held and output in runs.theirs.held
    return (
        one is not None and other is not None and not at_hand and (one.shape, one.dtype) == (other.shape, other.dtype)
    )


def _join(before: EdgeDifference | None, part: EdgeDifference | None, first: int, size: int) -> EdgeDifference | None:
    """The worse of two differences; that of a part has its place in the whole."""
    if part is None:
        return before
    index = part.finding.index
    moved = replace(part.finding, index=(index[0] + first, *index[1:]) if index else ())
    part = replace(part, finding=moved, size=size)
    if before is None:
        return part
    worse = part if _severity(part) > _severity(before) else before
    return replace(worse, count=before.count + part.count)


def _severity(one: EdgeDifference) -> tuple[bool, float]:
    return one.overflows, math.inf if one.finding.ratio is None else one.finding.ratio


def count_ties(observed: Observed) -> dict[float, float]:
    """The most values that are exactly at each threshold."""
    most: dict[float, float] = {}
    for site, statistics in observed.items():
        if site.kind == "threshold" and statistics[2]:
            most[site.bound] = max(most.get(site.bound, 0.0), float(statistics[2]))
    return most


def _judge_arrays(
    comparison: Comparison,
    edge: EdgeProbe,
    output: OutputName,
    native: ArrayPair,
    float64: ArrayPair | None,
    largest: tuple[float | None, float | None] = (None, None),
) -> EdgeDifference | None:
    """Judge an output or a part of it; `largest` are the reference's largest values of the whole, by precision."""
    probe = edge.probe.name
    lone = np.zeros(native[0].shape, bool)
    if str(native[0].dtype) not in INEXACT_DTYPES:
        differs = native[0] != native[1]
        if float64 is not None and float64[0].shape == native[0].shape:
            differs &= float64[0] != float64[1]
        errors, budgets = np.abs(widen_array(native[0]) - widen_array(native[1])), np.zeros(differs.shape)
        ratios = np.where(differs, np.inf, 0.0)
    else:
        differs, lone = _differences(comparison, edge, output, native, float64, largest)
        wide = float64 is not None and not lone.any()
        judged = float64 if wide and float64 is not None else native
        limits = output_budgets(comparison, probe, output, judged, wide, largest[wide])
        budgets, errors = limits.elements, finite_difference(*(widen_array(one) for one in judged))
        ratios = np.where(lone, np.inf, over_budget(errors, budgets))
    if not differs.any():
        return None
    index = np.unravel_index(int(np.argmax(np.where(differs, ratios, -1.0))), differs.shape)
    shown = [element_text(array[index]) for array in native]
    finite = bool(np.isfinite(errors[index]))
    finding = Finding(
        str(output),
        "refuted",
        error=float(errors[index]) if finite else None,
        budget=float(budgets[index]) if finite else None,
        ratio=float(ratios[index]) if np.isfinite(ratios[index]) else None,
        precision="native" if float64 is None else "float64",
        reference=shown[0],
        candidate=shown[1],
        index=tuple(int(axis) for axis in index),
        probe=probe,
        note=f"no rounding explains this difference, which only a probe made for it shows: {probe}",
        depth=comparison.noise.depth.get(output),
        factor=comparison.case.budget_factor,
        output=output,
    )
    return EdgeDifference(finding, edge, int(differs.sum()), int(differs.size), bool(lone[index]))


def _differences(
    comparison: Comparison,
    edge: EdgeProbe,
    output: OutputName,
    native: ArrayPair,
    float64: ArrayPair | None,
    largest: tuple[float | None, float | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Mark the elements that differ, and those of them where one port alone is not finite.

    A port that is not finite natively alone has rounded, as below a root, but where it is made to overflow.
    """
    probe = edge.probe.name
    wide = [widen_array(array) for array in native]
    finite = [np.isfinite(array) for array in wide]
    # A port that overflows a little earlier than the other overflows: the other's value has to be an ordinary one.
    ordinary = np.sqrt(_largest_of(native[0].dtype))
    lone = (finite[0] != finite[1]) & (np.where(finite[0], np.abs(wide[0]), np.abs(wide[1])) <= ordinary)
    both = finite[0] & finite[1]
    error = np.where(both, finite_difference(*wide), 0.0)
    differs = error > output_budgets(comparison, probe, output, native, False, largest[0]).elements
    if float64 is not None:
        exact = finite_difference(*float64)
        limits = output_budgets(comparison, probe, output, float64, True, largest[1]).elements
        if not edge.overflows:
            lone &= np.isfinite(float64[0]) != np.isfinite(float64[1])
        with np.errstate(invalid="ignore"):
            differs &= (exact > limits) & (exact >= error / 2)
    return differs | lone, lone


def _largest_of(dtype: np.dtype) -> float:
    """The largest number of a dtype."""
    return float(ml_dtypes.finfo(dtype).max)


def exact_noise(
    noise: RoundingNoise, ordinary: Sample, edge: Sample, probe: str
) -> tuple[Mapping[OutputName, Responses], Mapping[OutputName, Responses]]:
    """Derive responses to rounding where nothing may be nudged: as badly conditioned as on an ordinary probe.

    Args:
        noise: of the reference.
        ordinary: the reference on an ordinary probe.
        edge: the reference on the probe whose responses are asked for.
        probe: name of the ordinary probe.

    Returns:
        Output to responses, natively and in float64.
    """

    def of(outputs: Outputs, before: Outputs | None, in_float64: bool) -> dict[OutputName, Responses]:
        found: dict[OutputName, Responses] = {}
        for output in outputs:
            dtype = output_dtype(outputs, output)
            if before is None or dtype is None or output not in before or str(dtype) not in INEXACT_DTYPES:
                continue
            known, size = find_responses(noise, probe, output, in_float64).largest, ulp(dtype)
            largest = largest_value(before, output)
            condition = known / (size * largest) if largest else 1.0
            found[output] = Responses(max(known, size * largest, condition * size * largest_value(outputs, output)))
        return found

    return of(edge.native, ordinary.native, False), of(edge.float64 or {}, ordinary.float64, True)
