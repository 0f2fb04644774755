"""Align two programs by the values that they compute, and follow a refuted output back to where both still agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from equiv.comparison.explain.constant_uses import ConstantUse, find_constants
from equiv.comparison.explain.fingerprints import Fingerprints, join_fingerprints, match_fingerprints
from equiv.comparison.explain.recording import SLICE, STACK, Operation, Recording
from equiv.core.output_name import OutputName
from equiv.programs.jaxpr import is_own_equation

REPEATS = frozenset(["broadcast_in_dim", SLICE, STACK])
"""Operations that repeat, take or collect what they are given: their results are shared where their operands are."""


@dataclass(frozen=True, eq=False)
class SideRuns:
    """The runs of one program.

    Attributes:
        runs: on each probe.
        prints: the fingerprints of all of them.
    """

    runs: tuple[Recording, ...]
    prints: Fingerprints

    @property
    def first(self) -> Recording:
        """The run on the first probe, by whose numbers values are known."""
        return self.runs[0]


def join_runs(runs: Sequence[Recording], nudged: Sequence[Recording]) -> SideRuns:
    """Join the runs of a program; those that went another way on another probe are left out.

    Args:
        runs: on each probe.
        nudged: on each probe with every input moved by an ulp.
    """
    first = runs[0]
    similar = [pair for pair in zip(runs, nudged, strict=True) if pair[0].shapes == first.shapes]
    sizes = [int(np.prod(shape)) for shape in first.shapes]
    prints = join_fingerprints([run.prints for run, _ in similar], [moved.prints for _, moved in similar], sizes)
    return SideRuns(tuple(run for run, _ in similar), prints)


@dataclass(frozen=True, eq=False)
class AlignedSide:
    """One program, and which of its values the other computes too.

    Attributes:
        recording: its run on the first probe.
        matches: for every value, those of the other program with its fingerprint.
        shared: whether the other program has the value.
        lost: values that an unbroken chain of values that are not shared links to a refuted output.
    """

    recording: Recording
    matches: Sequence[tuple[int, ...]]
    shared: Sequence[bool]
    lost: frozenset[int]

    @cached_property
    def frontier(self) -> tuple[Operation, ...]:
        """The operations where a chain begins: their operands are shared, a result is not. Of a loop the first turn."""
        found: dict[tuple[object, ...], Operation] = {}
        for operation in self.recording.operations:
            if not self.lost.isdisjoint(operation.outs) and self.lost.isdisjoint(operation.ins):
                found.setdefault(operation.key, operation)
        return tuple(found.values())

    @cached_property
    def constants(self) -> tuple[ConstantUse, ...]:
        """Every use of a number."""
        return tuple(find_constants(self.recording))

    @cached_property
    def readers(self) -> Mapping[int, Sequence[Operation]]:
        """Value to the operations that read it."""
        found: dict[int, list[Operation]] = {}
        for operation in self.recording.operations:
            for value in dict.fromkeys(operation.ins):
                found.setdefault(value, []).append(operation)
        return found

    def later(self, operation: Operation, most: int) -> tuple[Operation, ...]:
        """Lost operations that depend on one, itself first, in order; no more than `most`."""
        records = self.recording.operations
        reached, found = set(operation.outs), [operation]
        for other in records[self.recording.maker[operation.outs[0]] + 1 :]:
            if len(found) >= most:
                break
            if not reached.isdisjoint(other.ins) and not self.lost.isdisjoint(other.outs):
                reached.update(other.outs)
                found.append(other)
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two programs side by side.

    Attributes:
        reference: the reference's.
        candidate: the candidate's.
        refuted: outputs that differ.
        prints: the fingerprints of both.
    """

    reference: AlignedSide
    candidate: AlignedSide
    refuted: tuple[OutputName, ...]
    prints: tuple[Fingerprints, Fingerprints]

    def distance(self, value: int) -> float | None:
        """How far the nearest value of the candidate is from one of the reference, over what rounding allows."""
        ours, theirs = self.prints
        similar = np.flatnonzero(theirs.sizes == ours.sizes[value])
        with np.errstate(invalid="ignore"):
            distance = np.abs(theirs.prints[similar] - ours.prints[value])
            distance = distance / (theirs.allowed[similar] + ours.allowed[value])
        known = distance[~np.isnan(distance).any(axis=1)]
        return float(known.max(axis=1).min()) if len(known) else None


def align_runs(reference: SideRuns, candidate: SideRuns, refuted: Sequence[OutputName]) -> Alignment:
    """Align two programs by their values.

    Args:
        reference: the runs of the reference's program.
        candidate: those of the candidate's, on the same probes.
        refuted: outputs that differ: the chains begin there.
    """
    shared_probes = min(reference.prints.prints.shape[1], candidate.prints.prints.shape[1])
    prints = [_first_columns(side.prints, shared_probes) for side in (reference, candidate)]
    ours = _align_side(reference.first, match_fingerprints(prints[0], prints[1]), refuted)
    theirs = _align_side(candidate.first, match_fingerprints(prints[1], prints[0]), refuted)
    return Alignment(ours, theirs, tuple(refuted), (prints[0], prints[1]))


def _first_columns(prints: Fingerprints, count: int) -> Fingerprints:
    return Fingerprints(prints.prints[:, :count], prints.allowed[:, :count], prints.sizes)


def _align_side(recording: Recording, matches: Sequence[tuple[int, ...]], refuted: Sequence[OutputName]) -> AlignedSide:
    shared = _mark_shared(recording, matches)
    lost, left = set[int](), [recording.outputs[name] for name in refuted if name in recording.outputs]
    while left:
        value = left.pop()
        operation = recording.maker_of(value)
        if value in lost or operation is None:
            continue
        lost.add(value)
        left += [one for one in operation.ins if not shared[one] and not _is_parameter(recording, one)]
    return AlignedSide(recording, matches, shared, frozenset(lost))


def _is_parameter(recording: Recording, value: int) -> bool:
    """Whether a value is one number that belongs to the operation that uses it, as an epsilon; no start of a loop."""
    return value in recording.numbers and value not in recording.starts


def _mark_shared(recording: Recording, matches: Sequence[tuple[int, ...]]) -> list[bool]:
    """Mark values that the other program has: by their fingerprint, or since they only repeat what it has.

    A result that is one of its own operands, as of a product with ones, is shared only where all operands are: it is
    found in the other program wherever that operand is. Numbers belong to the operation that uses them.
    """
    shared = [bool(found) for found in matches]
    for value in recording.inputs:
        shared[value] = True
    for value, shape in enumerate(recording.shapes):
        if value not in recording.maker and not recording.moving[value] and not shape:
            shared[value] = True
    for operation in recording.operations:
        inside = all(shared[value] or _is_parameter(recording, value) for value in operation.ins)
        moving = any(recording.moving[value] for value in operation.ins)
        for out in operation.outs:
            if operation.primitive in REPEATS and moving:
                shared[out] |= inside
            elif operation.kind == "" and shared[out] and not inside and _is_neutral(operation, out, matches):
                shared[out] = False
            elif inside and not shared[out] and is_own_equation(operation.eqn):
                shared[out] = True  # the layout of a leaf, of which the other port has another one
    return shared


def _is_neutral(operation: Operation, out: int, matches: Sequence[tuple[int, ...]]) -> bool:
    """Whether a result has the matches of one of its operands, where it takes others too."""
    return len(operation.ins) > 1 and any(matches[value] == matches[out] for value in operation.ins)
