"""One run of a program operation by operation, of which only fingerprints stay: loops are written out by iteration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from equiv.comparison.explain.fingerprints import take_fingerprint
from equiv.core.output_name import InputName, OutputName
from equiv.errors import EquivError
from equiv.programs.content import is_key
from equiv.programs.eager import EagerEvaluation
from equiv.programs.jaxpr import ScanLoop, find_dead_values, read_scan, read_while
from equiv.programs.primitives import PLACEMENTS
from equiv.programs.program import Program

Place = tuple[Any, ...]
"""An equation after the calls and loops around it: the same in every iteration. Equations are equal by identity."""

SLICE, STACK = "slice", "stack"
"""What a loop does besides its body: it takes one slice, and stacks what the iterations give."""


MOST_OPERATIONS = 200_000
"""Operations of a run, each iteration of a loop counted, above which a program is not recorded."""


class Recorded(NamedTuple):
    """An array on its way through a program, and its number in the recording."""

    array: Any
    number: int


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation that was run.

    Attributes:
        place: where it stands in the program.
        kind: empty, or what a loop does with its operands (`SLICE`, `STACK`).
        turn: the iterations of the loops around it, outermost first.
        ins: numbers of its operands.
        outs: numbers of its results.
    """

    place: Place
    kind: str
    turn: tuple[int, ...]
    ins: tuple[int, ...]
    outs: tuple[int, ...]

    @property
    def eqn(self) -> Any:
        """The equation."""
        return self.place[-1]

    @property
    def primitive(self) -> str:
        """The name of the primitive, or what a loop does."""
        return self.kind or self.eqn.primitive.name

    @property
    def is_differentiated(self) -> bool:
        """Whether it belongs to what is differentiated, or to a backward pass: inside a loop, the loop says so."""
        return any("jvp(" in str(eqn.source_info.name_stack) for eqn in self.place)

    @property
    def key(self) -> tuple[Any, ...]:
        """What it shares with itself in other iterations."""
        return (*map(id, self.place), self.kind)


class Edit(NamedTuple):
    """A change of a program, made while it runs.

    Attributes:
        place: of the equation that is changed.
        change: called with the evaluation, the equation and its operands: its results. It may call
            `evaluation.compute` for the equation itself.
    """

    place: Place
    change: "Callable[[RecordingEvaluation, Any, list[Any]], Sequence[Any]]"


class LoopEdit(NamedTuple):
    """A change of what a loop starts with, or of its direction.

    Attributes:
        place: of the loop.
        start: operands to operands.
        reverse: whether its direction is the other one.
    """

    place: Place
    start: Callable[[list[Any]], list[Any]]
    reverse: bool = False


@dataclass(frozen=True)
class Changes:
    """All changes of a run.

    Attributes:
        edits: of equations.
        loops: of loops.
        inputs: inputs that have the value of another input.
        used: places whose results edits read.
        outputs: outputs that are made in another way, after all else.
    """

    edits: tuple[Edit, ...] = ()
    loops: tuple[LoopEdit, ...] = ()
    inputs: tuple[tuple[InputName, InputName], ...] = ()
    used: frozenset[Place] = frozenset()
    outputs: "tuple[tuple[OutputName, Callable[[RecordingEvaluation], Any]], ...]" = ()

    def join(self, other: "Changes") -> "Changes":
        """Both."""
        return Changes(
            self.edits + other.edits,
            self.loops + other.loops,
            self.inputs + other.inputs,
            self.used | other.used,
            self.outputs + other.outputs,
        )

    @cached_property
    def by_place(self) -> Mapping[Place, Edit]:
        """Edits by their place."""
        return {edit.place: edit for edit in self.edits}

    def apply_to_inputs(self, arrays: Mapping[InputName, Any]) -> dict[InputName, Any]:
        """The inputs, with those changed that are."""
        return dict(arrays) | {name: arrays[other] for name, other in self.inputs}


@dataclass
class Recording:
    """What was run: every operation, and the fingerprint of every value.

    Attributes:
        operations: in the order in which they were run.
        prints: the fingerprint of every value; None for keys, and for values that were not asked for.
        shapes: of every value.
        maker: value to the index of the operation that makes it.
        inputs: value to the input that it is.
        outputs: output to its value.
        numbers: value to the number that fills it, where it depends on no input and one number does.
        moving: whether a value depends on an input.
        starts: value to the loops that start with it, each with the index among their carries.
        kept: value to its array, where that was asked for.
        results: output to its array.
    """

    operations: list[Operation] = field(default_factory=list)
    prints: list[np.ndarray | None] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    maker: dict[int, int] = field(default_factory=dict)
    inputs: dict[int, InputName] = field(default_factory=dict)
    outputs: dict[OutputName, int] = field(default_factory=dict)
    numbers: dict[int, float] = field(default_factory=dict)
    moving: list[bool] = field(default_factory=list)
    starts: dict[int, list[tuple[Place, int]]] = field(default_factory=dict)
    kept: dict[int, np.ndarray] = field(default_factory=dict)
    results: dict[OutputName, np.ndarray] = field(default_factory=dict)

    def maker_of(self, value: int) -> Operation | None:
        """The operation that makes a value; None for inputs and constants."""
        index = self.maker.get(value)
        return None if index is None else self.operations[index]


def record_program(
    program: Program,
    inputs: Mapping[InputName, Any],
    changes: Changes | None = None,
    prints: bool = True,
    keep: frozenset[int] = frozenset(),
    whole_loops: bool = False,
) -> Recording:
    """Run a program operation by operation and record it; call it inside `jax.enable_x64(True)` for a float64 program.

    Args:
        program: the program.
        inputs: an array for each of its inputs.
        changes: of the program.
        prints: whether to take fingerprints; a trial needs none.
        keep: values whose arrays are kept; all others are dropped as soon as nothing reads them.
        whole_loops: whether a `scan` is one operation.
    """
    changes, recording = changes or Changes(), Recording()
    evaluation = RecordingEvaluation(recording, changes, prints, keep, whole_loops)
    given = changes.apply_to_inputs({name: inputs[name] for name in program.inputs})
    evaluation.given = given
    values = [evaluation.add(given[name], True) for name in program.inputs]
    recording.inputs.update((value.number, name) for value, name in zip(values, program.inputs, strict=True))
    with np.errstate(all="ignore"):
        found = evaluation.run(program.jaxpr, values)
        made: dict[OutputName, Recorded] = {
            name: evaluation.add(make(evaluation), True) for name, make in changes.outputs
        }
    found = [made.get(name) or value for name, value in zip(program.outputs, found, strict=True)]
    recording.outputs.update((name, value.number) for name, value in zip(program.outputs, found, strict=True))
    recording.results.update(
        (name, np.asarray(value.array))
        for name, value in zip(program.outputs, found, strict=True)
        if not is_key(value.array)
    )
    return recording


class RecordingEvaluation(EagerEvaluation):
    """Evaluation of a jaxpr on numbered arrays, by way of the changes of a run.

    Attributes:
        stash: place to the results of the equation there, in its latest iteration, where edits read them.
        given: the inputs of the program.
    """

    def __init__(
        self, recording: Recording, changes: Changes, prints: bool, keep: frozenset[int], whole_loops: bool = False
    ) -> None:
        self.recording, self.changes, self.prints, self.keep = recording, changes, prints, keep
        self.whole_loops = whole_loops
        self.stash: dict[Place, Sequence[Any]] = {}
        self.given: Mapping[InputName, Any] = {}
        self.turn: tuple[int, ...] = ()

    def add(self, array: Any, moving: bool) -> Recorded:
        """Give an array a number."""
        record = self.recording
        number = len(record.shapes)
        keyed = is_key(array)
        record.shapes.append(tuple(np.shape(array)))
        record.moving.append(moving)
        record.prints.append(None if keyed or not self.prints else take_fingerprint(np.asarray(array)))
        if not moving and not keyed and (filled := _filling_number(array)) is not None:
            record.numbers[number] = filled
        if number in self.keep and not keyed:
            record.kept[number] = np.asarray(array)
        return Recorded(array, number)

    def dead_values(self, jaxpr: Any) -> Sequence[Sequence[Any]]:
        """Values that nothing reads again are dropped: only their fingerprints stay."""
        return find_dead_values(jaxpr)

    def literal(self, atom: Any) -> Recorded:
        """A literal with a number."""
        return self.add(super().literal(atom), False)

    def constant(self, array: Any) -> Recorded:
        """A constant with a number."""
        return self.add(array, False)

    def compute(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an equation from arrays."""
        if eqn.primitive.name in PLACEMENTS:
            return ins
        return super().equation(eqn, ins)

    def equation(self, eqn: Any, ins: list[Recorded]) -> Sequence[Recorded]:
        """The results of an operation, by way of the edit at its place."""
        place = (*self.calls, eqn)
        arrays = [value.array for value in ins]
        edit = self.changes.by_place.get(place)
        outs = self.compute(eqn, arrays) if edit is None else edit.change(self, eqn, arrays)
        if place in self.changes.used:
            self.stash[place] = outs
        return self.record(eqn, "", ins, outs)

    def record(self, eqn: Any, kind: str, ins: Sequence[Recorded], outs: Sequence[Any]) -> list[Recorded]:
        """Record an operation: its results with their numbers."""
        if len(self.recording.operations) >= MOST_OPERATIONS:
            raise EquivError(f"more than {MOST_OPERATIONS:,} operations with those of every iteration", fix="")
        moving = any(self.recording.moving[value.number] for value in ins)
        made = [self.add(out, moving) for out in outs]
        operation = Operation(
            (*self.calls, eqn),
            kind,
            self.turn,
            tuple(value.number for value in ins),
            tuple(value.number for value in made),
        )
        self.recording.maker.update((value.number, len(self.recording.operations)) for value in made)
        self.recording.operations.append(operation)
        return made

    def scan(self, eqn: Any, ins: list[Recorded]) -> Sequence[Recorded]:
        """A `scan`, iteration by iteration, each with operations of its own, unless loops are one operation."""
        if self.whole_loops:
            return self.equation(eqn, ins)
        loop, place = read_scan(eqn), (*self.calls, eqn)
        reverse = loop.reverse
        for edit in (edit for edit in self.changes.loops if edit.place == place):
            changed = edit.start([value.array for value in ins])
            ins = [
                old if new is old.array else self.add(new, self.recording.moving[old.number])
                for old, new in zip(ins, changed, strict=True)
            ]
            reverse ^= edit.reverse
        fixed, carry, scanned = loop.split(ins)
        for index, value in enumerate(carry):
            self.recording.starts.setdefault(value.number, []).append((place, index))
        order = range(loop.length)[:: -1 if reverse else 1]
        stacked: list[list[Recorded]] = []
        for number, iteration in enumerate(order):
            slices = [self.record(eqn, SLICE, [value], [_take_slice(value.array, iteration)])[0] for value in scanned]
            outs = self._inside(eqn, number, loop, [*fixed, *carry, *slices])
            carry = outs[: loop.carries]
            stacked.append(outs[loop.carries :])
        if reverse:
            stacked.reverse()
        return [*carry, *self._stack(eqn, loop, stacked)]

    def _inside(self, eqn: Any, number: int, loop: ScanLoop, ins: list[Recorded]) -> list[Recorded]:
        calls, turn, path = self.calls, self.turn, self.path
        self.calls, self.turn = (*calls, eqn), (*turn, number)
        outs = self.run(loop.body, ins)
        self.calls, self.turn, self.path = calls, turn, path
        return outs

    def _stack(self, eqn: Any, loop: ScanLoop, stacked: list[list[Recorded]]) -> list[Recorded]:
        if not stacked:
            empty = super().scan(eqn, [np.zeros(atom.aval.shape, atom.aval.dtype) for atom in eqn.invars])
            return [self.add(array, False) for array in empty[loop.carries :]]
        columns = list(zip(*stacked, strict=True))
        return [
            self.record(eqn, STACK, column, [_stack_arrays([value.array for value in column])])[0] for column in columns
        ]

    def while_loop(self, eqn: Any, ins: list[Recorded]) -> Sequence[Recorded]:
        """A `while_loop`, likewise."""
        loop = read_while(eqn)
        for_test, for_body, carry = loop.split(ins)
        calls, turn, number = self.calls, self.turn, 0
        self.calls = (*calls, eqn)
        while True:
            self.turn = (*turn, number)
            if not bool(np.asarray(self.run(loop.test, [*for_test, *carry])[0].array)):
                break
            carry, number = self.run(loop.body, [*for_body, *carry]), number + 1
        self.calls, self.turn = calls, turn
        return carry

    def cond(self, eqn: Any, ins: list[Recorded]) -> Sequence[Recorded]:
        """The branch that is taken."""
        branches = eqn.params["branches"]
        calls = self.calls
        self.calls = (*calls, eqn)
        outs = self.run(branches[min(max(int(np.asarray(ins[0].array)), 0), len(branches) - 1)], ins[1:])
        self.calls = calls
        return outs


def _take_slice(array: Any, index: int) -> Any:
    return array[index] if is_key(array) else np.asarray(array)[index]


def _stack_arrays(arrays: Sequence[Any]) -> Any:
    return (jnp if is_key(arrays[0]) else np).stack(arrays)


def _filling_number(array: Any) -> float | None:
    """The number that fills an array; None where there are several, or none."""
    flat = np.asarray(array).ravel()
    if not flat.size or flat.dtype.kind not in "fiub":
        return None
    return float(flat[0]) if (flat == flat[0]).all() or (flat.dtype.kind == "f" and np.isnan(flat).all()) else None
