"""Compare large outputs of two ports part by part, as both compute them: no step of training outlives the next."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np

from equiv.comparison.numeric.blocks import split_arrays
from equiv.comparison.numeric.budgets import add_distance, output_budgets
from equiv.comparison.numeric.difference import (
    Difference,
    find_moved,
    is_decided_natively,
    is_proved_in_real_numbers,
    limit_budget,
    make_finding,
    settle_by_own_rounding,
    worst_element,
)
from equiv.comparison.numeric.held_outputs import HeldOutputs, LargeOutput, run_in_step
from equiv.comparison.observation import Comparison, Outputs, PortOutputs, Sample
from equiv.core.budget import Responses
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import OutputName
from equiv.core.results import Finding

FOLDED_GRADES = (*EQUAL_GRADES, "unidentifiable", "vacuous")
"""Grades for which the worst element is enough; what is refuted is looked at as a whole, as far as it fits."""

FETCHED = 2**28
"""Bytes of refuted outputs of one probe that become arrays, smallest first; of the others the worst element is known.

A port that differs from the first layer on differs in every parameter and moment of every train step."""


def fold_comparison(comparison: Comparison) -> Comparison:
    """Compare large outputs part by part, and fetch the arrays of those that differ, or that cannot be folded.

    Folded are outputs of one name, shape and float dtype with finite values in both ports; the others are few. Budgets
    are those of the inputs alone; see `fold_own_rounding`.
    """
    folded: dict[tuple[str, OutputName], Finding] = {}
    strict = replace(comparison, own_rounding=(None, None))
    reference, candidate = dict(comparison.reference.samples), dict(comparison.candidate.samples)
    for probe, ours in comparison.reference.samples.items():
        theirs = comparison.candidate.samples[probe]
        found = {
            output: _named(make_finding(output, native, float64, strict), probe, output)
            for output, native, float64 in _fold_probe(strict, probe, ours, theirs)
        }
        known = found.keys() - _affordable(found, ours)
        folded |= {(probe, output): found[output] for output in known}
        reference[probe], candidate[probe] = _fetch_others(ours, known), _fetch_others(theirs, known)
    sides = replace(comparison.reference, samples=reference), replace(comparison.candidate, samples=candidate)
    return fold_own_rounding(replace(comparison, reference=sides[0], candidate=sides[1], folded=folded))


def fold_own_rounding(comparison: Comparison) -> Comparison:
    """Judge what is refuted without arrays once more, with what the operations of both ports round, where known."""
    again: dict[tuple[str, OutputName], Finding] = {}
    refuted = {key: found for key, found in comparison.folded.items() if found.grade == "refuted"}
    for probe in dict.fromkeys(name for name, _ in refuted if _is_measured(comparison, name)):
        ours, theirs = comparison.reference.samples[probe], comparison.candidate.samples[probe]
        doubted = {output for name, output in refuted if name == probe}
        for output, native, float64 in _fold_probe(comparison, probe, ours, theirs, doubted):
            finding = make_finding(output, native, float64, comparison)
            proved = is_proved_in_real_numbers(comparison, output, probe, output)
            in_float64 = float64 is not None and finding.precision == "float64"
            moved = float64.moved if float64 is not None and in_float64 else native.moved
            is_zero = float64 is not None and float64.largest <= float64.zero  # in theory; see `compare_arrays`
            most = inf if proved or is_zero else (float64 or native).largest
            most = limit_budget(comparison, probe, output, in_float64, most)
            settled = settle_by_own_rounding(comparison, refuted[probe, output], finding, most, moved)
            again[probe, output] = _named(settled, probe, output)
    return replace(comparison, folded={**comparison.folded, **again})


def _is_measured(comparison: Comparison, probe: str) -> bool:
    """Whether what the operations of a port round is known on a probe."""
    known = (one for one in comparison.own_rounding if one is not None)
    return any(one.native.get(probe) or one.float64.get(probe) for one in known)


def _named(finding: Finding, probe: str, output: OutputName) -> Finding:
    return replace(finding, place=str(output), probe=probe, output=output)


def _affordable(found: Mapping[OutputName, Finding], ours: Sample) -> set[OutputName]:
    """The refuted outputs whose arrays are fetched."""
    assert isinstance(ours.native, HeldOutputs) or not found, "what is folded is held"
    large = ours.native.large if isinstance(ours.native, HeldOutputs) else {}
    refuted = [output for output, one in found.items() if one.grade not in FOLDED_GRADES]
    sizes = {output: 2 * prod(large[output].shape) * (large[output].dtype.itemsize + 8) for output in refuted}
    taken: set[OutputName] = set()
    total = 0
    for output in sorted(refuted, key=lambda one: sizes[one]):
        total += sizes[output]
        if total <= FETCHED:
            taken.add(output)
    return taken


def fetch_outputs(side: PortOutputs, wanted: Mapping[str, set[OutputName]]) -> PortOutputs:
    """The same port with arrays of some outputs, by probe."""
    samples = {name: _fetch(sample, wanted.get(name, set())) for name, sample in side.samples.items()}
    return replace(side, samples=samples)


def _fetch_others(sample: Sample, known: Set[OutputName]) -> Sample:
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

    def largest(self, output: OutputName) -> tuple[float, float]:
        """The largest finite magnitude of a large output in both."""
        return self.ours.large[output].largest, self.theirs.large[output].largest

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
    comparison: Comparison, probe: str, ours: Sample, theirs: Sample, outputs: Set[OutputName] | None = None
) -> Iterator[tuple[OutputName, Difference, Difference | None]]:
    """Yield the worst elements of large outputs, natively and where looked at in float64; `outputs` None: of all."""
    native, float64 = pair_runs(ours.native, theirs.native), pair_runs(ours.float64, theirs.float64)
    if native is None:
        return
    shared = native.shared() if outputs is None else native.shared() & outputs
    alone = {output for output in shared if _is_native_alone(comparison, probe, output, ours, theirs)}
    distances = comparison.noise.from_float64.get(probe, {})
    twice = (shared - alone) & float64.shared() & distances.keys() if float64 is not None else set[OutputName]()
    # One precision after the other: two runs are in memory at once, and no more.
    worst = _find_worst(comparison, probe, native, alone | twice, {output: distances[output] for output in twice})
    judges = _find_worst(comparison, probe, float64, twice) if float64 is not None else {}
    for output, found in worst.items():
        yield output, found, judges.get(output)


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
                most, arrays = runs.largest(output), (chunk, other)
                largest = most[0]
                budgets = output_budgets(comparison, probe, output, arrays, distances is None, largest)
                if distances and output in distances:
                    budgets = add_distance(budgets, distances[output], chunk, largest)
                found = worst_element(arrays, budgets)
                if comparison.own_rounding != (None, None):
                    moved = find_moved(comparison, probe, output, arrays, found.index, distances is None, most)
                    found = replace(found, moved=moved)
                worst[output] = _join(worst.get(output), found, first)
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
