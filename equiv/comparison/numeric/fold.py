"""Compare large outputs of two ports part by part, as both compute them: no step of training outlives the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import split_arrays
from equiv.comparison.numeric.budgets import add_distance, output_budgets
from equiv.comparison.numeric.difference import Difference, is_decided_natively, make_finding, worst_element
from equiv.comparison.numeric.held_outputs import HeldOutputs, LargeOutput, run_in_step
from equiv.comparison.observation import Comparison, Outputs, PortOutputs, Sample
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
    worst: dict[OutputName, Difference] = {}
    judges: dict[OutputName, Difference] = {}
    places: dict[OutputName, int] = {}
    for pair, wide in stream_parts(native, float64 if twice else None):
        for output in (alone | twice) & pair[0].keys() & pair[1].keys():
            arrays = [one[output] for one in (*pair, *(wide if output in twice else ()))]
            for chunks in split_arrays(arrays):
                first = places.get(output, 0)
                places[output] = first + chunks[0].size
                largest = native.ours.large[output].largest
                budgets = output_budgets(comparison, probe, output, (chunks[0], chunks[1]), False, largest)
                if output in twice and float64 is not None:
                    budgets = add_distance(budgets, distances[output], chunks[0], largest)
                    found = _worst_in_float64(comparison, probe, output, (chunks[2], chunks[3]), float64)
                    judges[output] = _join(judges.get(output), found, first)
                worst[output] = _join(worst.get(output), worst_element((chunks[0], chunks[1]), budgets), first)
            del arrays
        del pair, wide
    for output, found in worst.items():
        shape = native.ours.large[output].shape
        judge = _with_index(judges[output], shape) if output in judges else None
        finding = make_finding(output, _with_index(found, shape), judge, comparison)
        if finding.grade in FOLDED_GRADES:
            yield output, replace(finding, place=str(output), probe=probe, output=output)


def pair_runs(ours: Outputs | None, theirs: Outputs | None) -> RunPair | None:
    """Both runs, where neither holds its large outputs; else None."""
    return RunPair(ours, theirs) if isinstance(ours, HeldOutputs) and isinstance(theirs, HeldOutputs) else None


def _is_native_alone(comparison: Comparison, probe: str, output: OutputName, ours: Sample, theirs: Sample) -> bool:
    """Whether an output is judged by its native values."""
    missing = any(sample.float64 is None or output not in sample.float64 for sample in (ours, theirs))
    return missing or is_decided_natively(comparison, output, probe, output)


def stream_parts(
    native: RunPair, float64: RunPair | None
) -> Iterator[tuple[tuple[Outputs, Outputs], tuple[Outputs, Outputs]]]:
    """Run both ports in step, and yield their parts in both precisions."""
    runs = [native.ours, native.theirs, *((float64.ours, float64.theirs) if float64 else ())]
    for parts in run_in_step(run.stream() for run in runs):
        outputs = [part for part, _ in parts]
        del parts[:]
        yield (outputs[0], outputs[1]), (outputs[2], outputs[3]) if float64 else ({}, {})
        del outputs


def _worst_in_float64(
    comparison: Comparison, probe: str, output: OutputName, arrays: ArrayPair, runs: RunPair
) -> Difference:
    budgets = output_budgets(comparison, probe, output, arrays, True, runs.ours.large[output].largest)
    return worst_element(arrays, budgets)


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
