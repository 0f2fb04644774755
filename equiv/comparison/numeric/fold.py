"""Compare large outputs of two ports part by part, as both compute them: no step of training outlives the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric.blocks import split_arrays
from equiv.comparison.numeric.budgets import add_distance, output_budgets
from equiv.comparison.numeric.difference import Difference, is_decided_natively, make_finding, worst_element
from equiv.comparison.numeric.held_outputs import HeldOutputs, LargeOutput, run_in_step
from equiv.comparison.observation import Comparison, Outputs, PortOutputs, Sample
from equiv.core.budget import Responses
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import OutputName
from equiv.core.results import Finding

FOLDED_GRADES = (*EQUAL_GRADES, "unidentifiable", "vacuous")
"""Grades for which the worst element is enough; what is refuted is looked at as a whole."""


def fold_comparison(comparison: Comparison) -> Comparison:
    """Compare large outputs part by part, and fetch the arrays of those that differ, or that cannot be folded.

    Folded are outputs of one name, shape and float dtype with finite values in both ports; the others are few.
    """
    folded: dict[tuple[str, OutputName], Finding] = {}
    reference, candidate = dict(comparison.reference.samples), dict(comparison.candidate.samples)
    for probe, ours in comparison.reference.samples.items():
        theirs = comparison.candidate.samples[probe]
        folded |= {(probe, output): found for output, found in _fold_probe(comparison, probe, ours, theirs)}
        known = {output for name, output in folded if name == probe}
        reference[probe], candidate[probe] = _fetch_others(ours, known), _fetch_others(theirs, known)
    sides = replace(comparison.reference, samples=reference), replace(comparison.candidate, samples=candidate)
    return replace(comparison, reference=sides[0], candidate=sides[1], folded=folded)


def fetch_outputs(side: PortOutputs, wanted: Mapping[str, set[OutputName]]) -> PortOutputs:
    """The same port with arrays of some outputs, by probe."""
    samples = {name: _fetch(sample, wanted.get(name, set())) for name, sample in side.samples.items()}
    return replace(side, samples=samples)


def _fetch_others(sample: Sample, known: set[OutputName]) -> Sample:
    large = sample.native.large.keys() if isinstance(sample.native, HeldOutputs) else set[OutputName]()
    return _fetch(sample, set(large) - known)


def _fetch(sample: Sample, names: set[OutputName]) -> Sample:
    native, float64 = (
        outputs.fetch(names) if isinstance(outputs, HeldOutputs) and names else outputs
        for outputs in (sample.native, sample.float64)
    )
    assert native is not None, "only a float64 run may be missing"
    return replace(sample, native=native, float64=float64)


@dataclass(frozen=True)
class RunPair:
    """The runs of one precision: of the reference and of the candidate."""

    ours: HeldOutputs
    theirs: HeldOutputs

    def shared(self) -> set[OutputName]:
        """The large outputs of both that can be compared part by part."""
        return {
            output
            for output, one in self.ours.large.items()
            if output in self.theirs.large and _are_comparable(one, self.theirs.large[output])
        }


def _are_comparable(one: LargeOutput, other: LargeOutput) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype) and not one.nonfinite + other.nonfinite


def _fold_probe(
    comparison: Comparison, probe: str, ours: Sample, theirs: Sample
) -> Iterator[tuple[OutputName, Finding]]:
    native, float64 = pair_runs(ours.native, theirs.native), pair_runs(ours.float64, theirs.float64)
    if native is None:
        return
    shared = native.shared()
    alone = {output for output in shared if _is_native_alone(comparison, probe, output, ours, theirs)}
    distances = comparison.noise.from_float64.get(probe, {})
    twice = (shared - alone) & float64.shared() & distances.keys() if float64 is not None else set[OutputName]()
    # One precision after the other: two runs are in memory at once, and no more.
    worst = _find_worst(comparison, probe, native, alone | twice, {output: distances[output] for output in twice})
    judges = _find_worst(comparison, probe, float64, twice) if float64 is not None else {}
    for output, found in worst.items():
        finding = make_finding(output, found, judges.get(output), comparison)
        if finding.grade in FOLDED_GRADES:
            yield output, replace(finding, place=str(output), probe=probe, output=output)


def _find_worst(
    comparison: Comparison,
    probe: str,
    runs: RunPair,
    outputs: set[OutputName],
    distances: Mapping[OutputName, Responses] | None = None,
) -> dict[OutputName, Difference]:
    """Find the worst elements of large outputs in one precision.

    Args:
        comparison: of which the noise is used.
        probe: the probe.
        runs: the runs of both ports.
        outputs: those that are compared.
        distances: how far the reference's native values are from those in float64; None: these are in float64.
    """
    worst: dict[OutputName, Difference] = {}
    places: dict[OutputName, int] = {}
    for pair in stream_parts(runs) if outputs else ():
        for output in outputs & pair[0].keys() & pair[1].keys():
            for chunk, other in split_arrays([one[output] for one in pair]):
                first = places.get(output, 0)
                places[output] = first + chunk.size
                largest, arrays = runs.ours.large[output].largest, (chunk, other)
                budgets = output_budgets(comparison, probe, output, arrays, distances is None, largest)
                if distances and output in distances:
                    budgets = add_distance(budgets, distances[output], chunk, largest)
                worst[output] = _join(worst.get(output), worst_element(arrays, budgets), first)
        del pair  # before the next part is computed
    shapes = {output: runs.ours.large[output].shape for output in worst}
    return {output: _with_index(found, shapes[output]) for output, found in worst.items()}


def pair_runs(ours: Outputs | None, theirs: Outputs | None) -> RunPair | None:
    """Both runs, where neither holds its large outputs; else None."""
    return RunPair(ours, theirs) if isinstance(ours, HeldOutputs) and isinstance(theirs, HeldOutputs) else None


def _is_native_alone(comparison: Comparison, probe: str, output: OutputName, ours: Sample, theirs: Sample) -> bool:
    """Whether an output is judged by its native values."""
    missing = any(sample.float64 is None or output not in sample.float64 for sample in (ours, theirs))
    return missing or is_decided_natively(comparison, output, probe, output)


def stream_parts(*pairs: RunPair) -> Iterator[list[Outputs]]:
    """Run both ports in step, and yield their parts: of the reference and of the candidate, for each pair."""
    for parts in run_in_step(run.stream() for pair in pairs for run in (pair.ours, pair.theirs)):
        outputs = [part for part, _ in parts]
        del parts[:]
        yield outputs
        del outputs


def _join(before: Difference | None, part: Difference, first: int) -> Difference:
    """The worse of two elements, each with its number in the whole; that of a part begins at `first`."""
    moved = replace(part, index=(part.index[0] + first,))
    if before is None:
        return moved
    worse = moved if moved.ratio > before.ratio else before
    return replace(worse, largest=max(before.largest, part.largest))


def _with_index(found: Difference, shape: tuple[int, ...]) -> Difference:
    """The same element, with its index in place of its number."""
    return replace(found, index=tuple(map(int, np.unravel_index(found.index[0], shape))))
