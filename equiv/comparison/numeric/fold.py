"""Compare large outputs of two ports part by part, as both compute them: no step of training outlives the next."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np

from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import split_arrays
from equiv.comparison.numeric.budgets import add_distance, budget_rule, output_budgets
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
from equiv.comparison.numeric.held_outputs import (
    HeldOutputs,
    LargeOutput,
    Stream,
    drop_observed,
    hold_outputs,
    run_in_step,
)
from equiv.comparison.numeric.worst_on_device import DeviceRule, find_worst_element, make_device_rule
from equiv.comparison.observation import Comparison, Outputs, PortOutputs, Sample
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import OutputName
from equiv.core.results import Finding
from equiv.programs.exercise import Observed

FOLDED_GRADES = (*EQUAL_GRADES, "unidentifiable", "vacuous")
"""Grades for which the worst element is enough; what is refuted is looked at as a whole, as far as it fits."""

FETCHED = 2**28
"""Bytes of refuted outputs of one probe that become arrays, smallest first; of the others the worst element is known.

A port that differs from the first layer on differs in every parameter and moment of every train step."""


def fold_comparison(comparison: Comparison, runs: Mapping[str, "FoldedRun"] | None = None) -> Comparison:
    """Compare large outputs part by part, and fetch the arrays of those that differ, or that cannot be folded.

    Folded are outputs of one name, shape and float dtype with finite values in both ports; the others are few. Budgets
    are those of the inputs alone; see `fold_own_rounding`.

    Args:
        comparison: the outputs of both ports.
        runs: probe to the candidate's run, where it was compared as it was held; both ports run once more on others.
    """
    folded: dict[tuple[str, OutputName], Finding] = {}
    strict = replace(comparison, own_rounding=(None, None))
    reference, candidate = dict(comparison.reference.samples), dict(comparison.candidate.samples)
    for probe, ours in comparison.reference.samples.items():
        theirs = comparison.candidate.samples[probe]
        found = {
            output: _named(make_finding(output, native, float64, strict), probe, output)
            for output, native, float64 in _fold_probe(strict, probe, ours, theirs, run=(runs or {}).get(probe))
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
    comparison: Comparison,
    probe: str,
    ours: Sample,
    theirs: Sample,
    outputs: Set[OutputName] | None = None,
    run: "FoldedRun | None" = None,
) -> Iterator[tuple[OutputName, Difference, Difference | None]]:
    """Yield the worst elements of large outputs, natively and where looked at in float64.

    Args:
        comparison: of which the noise is used.
        probe: the probe.
        ours: the reference on it.
        theirs: the candidate on it.
        outputs: those that are compared; None: all.
        run: the candidate's run, where it was compared as it was held.
    """
    native, float64 = pair_runs(ours.native, theirs.native), pair_runs(ours.float64, theirs.float64)
    if native is None:
        return
    shared = native.shared() if outputs is None else native.shared() & outputs
    alone, twice = _split_by_precision(comparison, probe, shared, ours.float64, theirs.float64)
    twice &= set[OutputName]() if float64 is None else float64.shared()
    if run is not None:
        worst, judges = run.find_worst(False, native, alone | twice), run.find_worst(True, float64, twice)
    else:  # One precision after the other: two runs are in memory at once, and no more.
        worst = _find_worst(_WorstElements(comparison, probe, native, twice), native, alone | twice)
        judges = {} if float64 is None else _find_worst(_WorstElements(comparison, probe, float64), float64, twice)
    for output, found in worst.items():
        if output in alone or output in judges:
            yield output, found, judges.get(output)


def _split_by_precision(
    comparison: Comparison, probe: str, outputs: Set[OutputName], ours: Outputs | None, theirs: Outputs | None
) -> tuple[set[OutputName], set[OutputName]]:
    """Choose how outputs are judged.

    Args:
        comparison: of which the proofs and the noise are used.
        probe: the probe.
        outputs: the outputs.
        ours: the float64 run of the reference.
        theirs: that of the candidate.

    Returns:
        Those judged by their native values alone, and those that may be folded in both precisions.
    """
    both = set() if ours is None or theirs is None else {one for one in outputs if one in ours and one in theirs}
    decided = {output for output in both if is_decided_natively(comparison, output, probe, output)}
    alone = (set(outputs) - both) | decided
    return alone, (both - decided) & comparison.noise.from_float64.get(probe, {}).keys()


class _WorstElements:
    """The worst elements of large outputs in one precision, as the parts of both runs are computed."""

    def __init__(
        self, comparison: Comparison, probe: str, runs: "RunPair", twice: Set[OutputName] | None = None
    ) -> None:
        """Begin.

        Args:
            comparison: of which the noise is used.
            probe: the probe.
            runs: the runs of both ports; of the candidate's only what operations round is asked, if it was measured.
            twice: the outputs that are compared in float64, too; None: these are in float64.
        """
        self._comparison, self._probe, self._runs, self._in_float64 = comparison, probe, runs, twice is None
        known = comparison.noise.from_float64.get(probe, {})
        # How far the reference's native values are from those in float64.
        self._distances = {output: known[output] for output in twice or ()}
        self._found: dict[OutputName, Difference] = {}
        self._places: dict[OutputName, int] = {}
        self._rules: dict[OutputName, DeviceRule] = {}

    def add(self, pair: Sequence[Outputs], outputs: Set[OutputName]) -> None:
        """Compare some outputs in the next part of both runs."""
        for output in outputs & pair[0].keys() & pair[1].keys():
            ours, theirs = (one[output] for one in pair)
            if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
                continue  # what is missing in `finish` is looked at as a whole
            first = self._places.get(output, 0)
            self._places[output] = first + ours.size
            self._found[output] = _join(self._found.get(output), self._compare(output, (ours, theirs)), first)

    def _compare(self, output: OutputName, arrays: ArrayPair) -> Difference:
        """The worst element of a part, with its number in it."""
        found = self._compare_on_device(output, arrays)
        if found is None:
            first = 0
            for ours, theirs in split_arrays(arrays):
                found, first = _join(found, self._compare_chunk(output, (ours, theirs)), first), first + ours.size
        assert found is not None, "what is large has elements"
        return found

    def _compare_on_device(self, output: OutputName, arrays: ArrayPair) -> Difference | None:
        """The same in compiled code; None: what the operations of the ports round is asked, or it cannot be found."""
        dtype = arrays[0].dtype
        if self._comparison.own_rounding != (None, None) or str(dtype) not in FLOAT_DTYPES:
            return None
        largest = self._runs.ours.large[output].largest
        if output not in self._rules:
            rule = budget_rule(self._comparison, self._probe, output, dtype, self._in_float64, largest)
            self._rules[output] = make_device_rule(replace(rule, distance=self._distances.get(output)), dtype)
        return find_worst_element(arrays, self._rules[output])

    def _compare_chunk(self, output: OutputName, arrays: ArrayPair) -> Difference:
        comparison, probe, in_float64 = self._comparison, self._probe, self._in_float64
        largest = self._runs.ours.large[output].largest
        budgets = output_budgets(comparison, probe, output, arrays, in_float64, largest)
        if output in self._distances:
            budgets = add_distance(budgets, self._distances[output], arrays[0], largest)
        found = worst_element(arrays, budgets)
        if comparison.own_rounding == (None, None):
            return found
        most = self._runs.largest(output)
        return replace(found, moved=find_moved(comparison, probe, output, arrays, found.index, in_float64, most))

    def finish(self, runs: "RunPair", outputs: Set[OutputName]) -> dict[OutputName, Difference]:
        """The worst elements of those of some outputs of both runs that were compared as a whole, by their index."""
        shapes = {output: runs.ours.large[output].shape for output in self._found if output in outputs}
        return {
            output: _as_whole(self._found[output], shape, max(runs.largest(output)))
            for output, shape in shapes.items()
            if self._places[output] == prod(shape)
        }


def _find_worst(worst: _WorstElements, runs: "RunPair", outputs: Set[OutputName]) -> dict[OutputName, Difference]:
    """Run both ports once more, and find the worst elements of some large outputs."""
    for pair in stream_parts(runs) if outputs else ():
        worst.add(pair, outputs)
        del pair  # before the next part is computed
    return worst.finish(runs, outputs)


class FoldedRun:
    """A run of the candidate that is compared with the reference's as it is held: it does not run once more for that.

    Where there is a float64 run, that is held first: it says what the native one is compared by.
    """

    def __init__(self, comparison: Comparison, probe: str) -> None:
        """Begin.

        Args:
            comparison: the outputs of the reference, the proofs and the noise; the candidate has not run.
            probe: the probe.
        """
        self._comparison, self._probe = replace(comparison, own_rounding=(None, None)), probe
        self._float64: Outputs | None = None
        self._worst: dict[bool, _WorstElements] = {}

    def hold(self, stream: Stream, in_float64: bool = False) -> tuple[HeldOutputs, Observed]:
        """Run the candidate, hold its outputs, and compare the large ones."""
        comparison, probe = self._comparison, self._probe
        given = comparison.reference.samples[probe]
        ours = given.float64 if in_float64 else given.native
        if not isinstance(ours, HeldOutputs):
            return hold_outputs(stream)
        outputs, theirs = ours.large.keys(), given.float64 if in_float64 else self._float64
        alone, twice = _split_by_precision(comparison, probe, outputs, given.float64, theirs)
        wanted, runs = twice if in_float64 else alone | twice, RunPair(ours, ours)
        self._worst[in_float64] = worst = _WorstElements(comparison, probe, runs, None if in_float64 else twice)
        parts = drop_observed(ours.stream() if wanted else ())
        held, observed = hold_outputs(stream, lambda part: worst.add((next(parts, {}), part), wanted))
        if in_float64:
            self._float64 = held
        return held, observed

    def find_worst(
        self, in_float64: bool, runs: "RunPair | None", outputs: Set[OutputName]
    ) -> dict[OutputName, Difference]:
        """The worst elements of those of some outputs that were compared as a whole; `runs` of both ports are held."""
        worst = self._worst.get(in_float64)
        return {} if worst is None or runs is None else worst.finish(runs, outputs)


def pair_runs(ours: Outputs | None, theirs: Outputs | None) -> RunPair | None:
    """Both runs, where neither holds its large outputs; else None."""
    return RunPair(ours, theirs) if isinstance(ours, HeldOutputs) and isinstance(theirs, HeldOutputs) else None


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
    return moved if before is None or moved.ratio > before.ratio else before


def _as_whole(found: Difference, shape: tuple[int, ...], largest: float) -> Difference:
    """The same element of the whole: with its index in place of its number, and the largest value of both ports."""
    return replace(found, index=tuple(map(int, np.unravel_index(found.index[0], shape))), largest=largest)
