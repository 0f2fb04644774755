"""Find the first values of two programs of which one may take the place of the other: what is between is at fault."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide, Alignment, align_runs, join_runs
from equiv.comparison.explain.causes.trial import edit_at, fit
from equiv.comparison.explain.judge import InputArrays, Judge, ProgramRuns
from equiv.comparison.explain.pairs import pair_frontiers
from equiv.comparison.explain.recording import Changes, Operation, Recording, RecordingEvaluation, record_program
from equiv.comparison.numeric.blocks import finite_difference
from equiv.comparison.numeric.budgets import over_budget
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.errors import EquivError
from equiv.programs.probes import widen_array

MOST_LATER = 60
"""Operations after the first different one among which the programs are looked for to have one value again."""

MOST_JOINS = 160
"""Most pairs of values that are tried."""

MISFITS = (TypeError, ValueError, IndexError, KeyError, NotImplementedError, ArithmeticError, EquivError)
"""What a value that does not fit in another's place raises."""

Turn = tuple[int, ...] | None
"""The iterations of the loops around a value; None: there are none."""


@dataclass(frozen=True)
class Join:
    """Two values that should be the same one: with the reference's in its place, the candidate is right.

    Attributes:
        reference: the reference's value.
        candidate: the candidate's.
    """

    reference: int
    candidate: int


@dataclass(frozen=True, eq=False)
class Aligned:
    """Two programs that differ, run on their probes.

    Attributes:
        runs: the programs, and what they are run on.
        judge: judges the outputs of a changed candidate.
        alignment: of both.
        background: changes of the candidate's program that take away other differences, by the number of the probe.
        whole_loops: whether a loop is one operation.
    """

    runs: ProgramRuns
    judge: Judge
    alignment: Alignment
    background: Callable[[int], Changes]
    whole_loops: bool

    def keep(self, side: int, values: Sequence[int], probe: int = 0) -> dict[int, np.ndarray]:
        """The arrays of values of one side on a probe."""
        program = (self.runs.reference, self.runs.candidate)[side]
        changes = self.background(probe) if side else Changes()
        inputs = self.runs.inputs[probe][side]
        run = record_program(
            program, inputs, changes, prints=False, keep=frozenset(values), whole_loops=self.whole_loops
        )
        return run.kept

    @cached_property
    def turns(self) -> tuple[Mapping[tuple[Any, ...], list[Operation]], ...]:
        """For each side, key of an operation to the operation in every iteration."""
        sides = []
        for side in (self.alignment.reference, self.alignment.candidate):
            found: dict[tuple[Any, ...], list[Operation]] = {}
            for operation in side.recording.operations:
                found.setdefault(operation.key, []).append(operation)
            sides.append(found)
        return tuple(sides)

    def values_by_turn(self, side: int, value: int) -> dict[Turn, int]:
        """A value in every iteration of the loops around it; by None where there are no loops."""
        operation = (self.alignment.reference, self.alignment.candidate)[side].recording.maker_of(value)
        if operation is None or not operation.turn:
            return {None: value}
        index = operation.outs.index(value)
        return {other.turn: other.outs[index] for other in self.turns[side][operation.key]}

    def is_join(self, join: Join, kept: Sequence[Sequence[Mapping[int, np.ndarray]]]) -> bool:
        """Whether each program computes what the other does, where its value is replaced by the other's.

        One way is not enough: scores that are masked twice are right, whatever was masked first.

        Args:
            join: the values.
            kept: arrays of the reference and of the candidate, on each probe.
        """
        return self._is_right(0, join.reference, join.candidate, kept[0]) and self._is_right(
            1, join.candidate, join.reference, kept[1]
        )

    def _is_right(self, source: int, value: int, place: int, kept: Sequence[Mapping[int, np.ndarray]]) -> bool:
        values = self.values_by_turn(source, value)
        for probe, arrays in enumerate(kept):
            run = self._force(1 - source, place, {turn: arrays[one] for turn, one in values.items()}, probe)
            if run is None:
                return False
            wanted = (self.judge.ours, self.judge.before)[source][probe]
            if not self._is_within(run, wanted, probe):
                return False
        return True

    def _is_within(self, run: Recording, wanted: Recording, probe: int) -> bool:
        for name in self.judge.shared:
            difference = finite_difference(*(widen_array(one.results[name]) for one in (run, wanted)))
            difference = np.where(np.isnan(difference), np.inf, difference)
            if np.max(over_budget(difference, self.judge.budgets[probe][name]), initial=0.0) > 1:
                return False
        return True

    def _force(self, side: int, value: int, arrays: Mapping[Turn, np.ndarray], probe: int) -> Recording | None:
        """Run a side with a value replaced; None: it cannot be."""
        recording = (self.alignment.reference, self.alignment.candidate)[side].recording
        inputs = dict(self.runs.inputs[probe][side])
        operation, changes = recording.maker_of(value), self.background(probe) if side else Changes()
        if operation is None:
            name, array = recording.inputs.get(value), arrays.get(None)
            if name is None or array is None:
                return None
            inputs[name] = fit(array, inputs[name])
        elif operation.kind:
            return None
        else:
            changes = changes.join(_replace_result(operation, operation.outs.index(value), arrays))
        program = (self.runs.reference, self.runs.candidate)[side]
        return record_program(program, inputs, changes, prints=False, whole_loops=self.whole_loops)


def _replace_result(operation: Operation, index: int, arrays: Mapping[Turn, np.ndarray]) -> Changes:
    """The changes that are one result of an operation replaced by an array, in a loop by one for every iteration."""

    def changed(evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = list(evaluation.compute(eqn, ins))
        array = arrays.get(evaluation.turn, arrays.get(None))
        if array is not None:
            outs[index] = fit(array, outs[index])
        return outs

    return edit_at(operation, changed)


def align_again(runs: ProgramRuns, background: Callable[[int], Changes], whole_loops: bool) -> Aligned | None:
    """Run both programs and align them; None: they do not differ on these probes.

    Args:
        runs: the programs, and what they are run on.
        background: changes of the candidate's program, by the number of the probe.
        whole_loops: whether a loop is one operation.
    """

    def run(side: int, given: Sequence[tuple[InputArrays, InputArrays]], prints: bool = True) -> list[Recording]:
        program = (runs.reference, runs.candidate)[side]
        return [
            record_program(
                program, pair[side], background(at) if side else Changes(), prints=prints, whole_loops=whole_loops
            )
            for at, pair in enumerate(given)
        ]

    ours, theirs, moved = run(0, runs.inputs), run(1, runs.inputs), run(0, runs.nudged)
    judge = Judge(runs, ours, moved, theirs)
    if not judge.refuted:
        return None
    sides = join_runs(ours, moved), join_runs(theirs, run(1, runs.nudged))
    return Aligned(runs, judge, align_runs(*sides, judge.refuted), background, whole_loops)


def find_join(aligned: Aligned, ends: float) -> Join | None:
    """Find the values after the fewest operations that should be the same; None: none were found.

    Args:
        aligned: the programs.
        ends: processor time after which no more are tried.
    """
    tried = set[Join]()
    for pair in pair_frontiers(aligned.alignment):
        joins = list(_iterate_joins(aligned.alignment, pair.reference, pair.candidate))[:MOST_JOINS]
        kept = [
            [aligned.keep(side, _wanted(aligned, side, joins), probe) for probe in range(len(aligned.runs.inputs))]
            for side in (0, 1)
        ]
        for join in joins:
            if time.process_time() > ends or len(tried) > MOST_JOINS:
                return None
            if join in tried or join.reference not in kept[0][0] or join.candidate not in kept[1][0]:
                continue
            tried.add(join)
            try:
                if aligned.is_join(join, kept):
                    return join
            except MISFITS:
                continue
    return None


def _wanted(aligned: Aligned, side: int, joins: Sequence[Join]) -> list[int]:
    """The values of one side that are put in place of others."""
    values = {join.candidate if side else join.reference for join in joins}
    return sorted({one for value in values for one in aligned.values_by_turn(side, value).values()})


def _iterate_joins(alignment: Alignment, ours: Operation | None, theirs: Operation | None) -> Iterator[Join]:
    """Yield pairs of values that may be the same one, those after the fewest operations first.

    One side may have none where the other does something more: its value is then one that both have.
    """
    one, other = _values_after(alignment.reference, ours), _values_after(alignment.candidate, theirs)
    shapes = alignment.reference.recording.shapes, alignment.candidate.recording.shapes
    pairs = [
        (part or rest, i + j, first, second)
        for first, (i, part) in one.items()
        for second, (j, rest) in other.items()
        if i + j and np.prod(shapes[0][first]) == np.prod(shapes[1][second])
    ]
    for _, _, first, second in sorted(pairs):
        yield Join(first, second)


def _values_after(side: AlignedSide, operation: Operation | None) -> dict[int, tuple[int, bool]]:
    """Values near where a program parts from the other.

    Returns:
        Value to the number of operations up to it, none for an operand, and whether some of what differs does not go
        through it.
    """
    if operation is None:
        return {}
    record = side.recording
    found = {value: 0 for value in operation.ins if value in record.inputs or value in record.maker}
    for number, later in enumerate(side.later(operation, MOST_LATER), 1):
        found.update((value, number) for value in later.outs if value in side.lost and _is_float(later, value))
    return {
        value: (number, not _passes_all(side, value, number == 0))
        for value, number in found.items()
        if record.moving[value]
    }


def _is_float(operation: Operation, value: int) -> bool:
    if operation.kind:
        return False
    return str(operation.eqn.outvars[operation.outs.index(value)].aval.dtype) in INEXACT_DTYPES


def _passes_all(side: AlignedSide, value: int, operand: bool) -> bool:
    """Whether no way leads from where the programs part to a refuted output, but through a value.

    Args:
        side: the program.
        value: the value.
        operand: whether it is one that both programs have: then the ways begin where it is read.
    """
    record = side.recording
    begun = {out for operation in side.frontier for out in operation.outs if out in side.lost}
    if operand:
        begun = {out for operation in side.frontier if value not in operation.ins for out in operation.outs}
    seen, left = {value}, [one for one in begun if one != value]
    goals = set(record.outputs.values()) & side.lost
    while left:
        one = left.pop()
        if one in seen or one not in side.lost:
            continue
        seen.add(one)
        if one in goals:
            return False
        left += [out for reader in side.readers.get(one, ()) for out in reader.outs]
    return True
