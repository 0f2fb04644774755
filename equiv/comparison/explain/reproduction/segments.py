"""The operations of both sides from values that both programs have to the first that should be the same."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import is_close
from equiv.comparison.explain.recording import SLICE, Operation
from equiv.comparison.explain.reproduction.joins import Aligned, Join
from equiv.core.output_name import InputName
from equiv.errors import EquivError
from equiv.programs.jaxpr import locate_equation, read_scan

MOST_OPERATIONS_WRITTEN = 120
"""Operations of one side above which no code is written: it would be too long."""

FIX = "Call equiv locate for the place."


@dataclass(frozen=True, eq=False)
class GivenArray:
    """An array that the code is given.

    Attributes:
        array: the reference's, unless only the candidate has it.
        text: what it is, in words.
    """

    array: np.ndarray
    text: str


@dataclass(frozen=True, eq=False)
class Segment:
    """The operations of one side.

    Attributes:
        operations: in order.
        given: value to the number of the array that it is given as, with the value's own shape.
        numbers: value to the array that one number fills.
        result: the value that they lead to.
        shapes: of every value.
        dtypes: likewise.
        indices: operation that takes a slice for a loop to the number of the slice.
    """

    operations: tuple[Operation, ...]
    given: dict[int, int]
    numbers: dict[int, np.ndarray]
    result: int
    shapes: dict[int, tuple[int, ...]]
    dtypes: dict[int, str]
    indices: dict[Operation, int]


@dataclass(frozen=True, eq=False)
class Segments:
    """Both sides.

    Attributes:
        reference: the reference's.
        candidate: the candidate's.
        given: the arrays that they are given.
        related: whether one of these arrays was made of another.
    """

    reference: Segment
    candidate: Segment
    given: tuple[GivenArray, ...]
    related: bool


def cut_segments(aligned: Aligned, join: Join) -> Segments:
    """Collect the operations that lead to two values, from values that both programs have.

    Args:
        aligned: the programs.
        join: the values.

    Raises:
        EquivError: they depend on a key, or are too many operations.
    """
    cutter = _Cutter(aligned)
    ours = cutter.cut(0, join.reference)
    theirs = cutter.cut(1, join.candidate)
    return Segments(ours, theirs, tuple(cutter.given), cutter.is_related())


@dataclass
class _Cutter:
    aligned: Aligned
    given: list[GivenArray] = field(default_factory=list)
    _numbers: dict[InputName | tuple[int, int], int] = field(default_factory=dict)
    _arrays: tuple[dict[int, np.ndarray], dict[int, np.ndarray]] = field(default_factory=lambda: ({}, {}))

    def cut(self, number: int, result: int) -> Segment:
        """Walk back from a value."""
        side = (self.aligned.alignment.reference, self.aligned.alignment.candidate)[number]
        record = side.recording
        indices, given, numbers = set[int](), dict[int, int](), dict[int, np.ndarray]()
        left = [(result, True)]
        while left:
            value, wanted = left.pop()
            if value in given or value in numbers or (value in record.maker and record.maker[value] in indices):
                continue
            if not wanted and value in record.numbers and not record.moving[value]:
                numbers[value] = self._array(number, value)
            elif (place := self._find_given(number, side, value)) is not None:
                given[value] = place
            else:
                operation = record.maker_of(value)
                assert operation is not None, "what no operation makes is given"
                indices.add(record.maker[value])
                left += [(one, False) for one in operation.ins]
            if len(indices) > MOST_OPERATIONS_WRITTEN:
                raise EquivError(
                    f"the smallest part of {self.aligned.runs.names[number]} in which it differs has more than "
                    f"{MOST_OPERATIONS_WRITTEN} operations: that is no small reproduction.",
                    fix=FIX,
                )
        operations = tuple(record.operations[index] for index in sorted(indices))
        read = {result, *given, *numbers, *(one for made in operations for one in (*made.ins, *made.outs))}
        arrays = {value: self._array(number, value) for value in sorted(read)}
        return Segment(
            operations,
            given,
            numbers,
            result,
            {value: array.shape for value, array in arrays.items()},
            {value: str(array.dtype) for value, array in arrays.items()},
            {one: _slice_number(side, one) for one in operations if one.kind == SLICE},
        )

    def is_related(self) -> bool:
        """Whether one of the arrays that are given was made of another."""
        record = self.aligned.alignment.reference.recording
        places = {name: value for value, name in record.inputs.items()}
        given = {places.get(key, -1) if isinstance(key, InputName) else key[1] for key in self._numbers}
        left, seen = list(given), set[int]()
        while left:
            operation = record.maker_of(left.pop())
            for value in () if operation is None else operation.ins:
                if value in given:
                    return True
                if value not in seen:
                    seen.add(value)
                    left.append(value)
        return False

    def _array(self, side: int, value: int) -> np.ndarray:
        """The array of a value; those around it are fetched with it."""
        known = self._arrays[side]
        if value not in known:
            near = range(max(0, value - 200), value + 40)
            known.update(self.aligned.keep(side, near))
        if value not in known:
            raise EquivError("it depends on a key of jax.random, which cannot be kept beside the code.", fix=FIX)
        return known[value]

    def _find_given(self, number: int, side: AlignedSide, value: int) -> int | None:
        """The number of the array that a value is given as; None: it has to be computed."""
        record, ours = side.recording, self.aligned.alignment.reference
        if value in record.inputs:
            return self._give(record.inputs[value], number, value, str(record.inputs[value]))
        operation = record.maker_of(value)
        if value in side.lost or (operation is not None and operation.primitive in (SLICE, "iota")):
            return None if value in record.maker else self._give((number, value), number, value, "constant")
        if number == 0:
            return self._give_shared(value)
        array = self._array(1, value)
        twins = [
            twin
            for twin in side.matches[value]
            if is_close(array, self._array(0, twin)) and array.dtype == self._array(0, twin).dtype
        ]
        # What the reference is given already comes first.
        for twin in sorted(twins, key=lambda one: (0, _source_of(ours, one)) not in self._numbers):
            return self._give_shared(twin)
        return None if value in record.maker else self._give((1, value), 1, value, "constant")

    def _give_shared(self, value: int) -> int:
        """Give a value of the reference that the candidate has, too."""
        ours = self.aligned.alignment.reference
        value = _source_of(ours, value)
        name = ours.recording.inputs.get(value)
        if name is not None:
            return self._give(name, 0, value, str(name))
        return self._give((0, value), 0, value, _describe(ours, value))

    def _give(self, key: InputName | tuple[int, int], side: int, value: int, text: str) -> int:
        if isinstance(key, InputName) and key.is_random:
            raise EquivError(f"it depends on {key}, which each library keeps in its own way.", fix=FIX)
        if key not in self._numbers:
            self._numbers[key] = len(self.given)
            self.given.append(GivenArray(self._array(side, value), text))
        return self._numbers[key]


RESHAPES = frozenset(["reshape", "squeeze", "broadcast_in_dim"])
"""Operations whose result has the elements of the operand in their order, where it has as many."""


def _source_of(side: AlignedSide, value: int) -> int:
    """The value that one is only another shape of."""
    record = side.recording
    while (operation := record.maker_of(value)) is not None and operation.primitive in RESHAPES:
        if np.prod(record.shapes[operation.ins[0]]) != np.prod(record.shapes[value]) or not record.shapes[value]:
            break
        value = operation.ins[0]
    return value


def _describe(side: AlignedSide, value: int) -> str:
    operation = side.recording.maker_of(value)
    if operation is None:
        return "constant"
    turn = f", iteration {'.'.join(map(str, operation.turn))}" if operation.turn else ""
    line, user_line, _ = locate_equation(operation.place)
    shown = user_line or line
    at = f" at {shown.short}" if shown else ""
    return f"result of {operation.primitive}{at}{turn}"


def _slice_number(side: AlignedSide, operation: Operation) -> int:
    """Which slice an operation of a loop takes."""
    loop = read_scan(operation.eqn)
    slices = list(_slices_of_turn(side, operation))
    turn = slices.index(operation) // (len(operation.eqn.invars) - loop.first_scanned)
    return loop.length - 1 - turn if loop.reverse else turn


def _slices_of_turn(side: AlignedSide, operation: Operation) -> Iterator[Operation]:
    for other in side.recording.operations:
        if other.kind == SLICE and other.key == operation.key and other.turn == operation.turn:
            yield other
