"""Causes: another initial carry, another direction of a loop, and constant arrays such as initial states."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from equiv.comparison.explain.causes.trial import Pair, Rank, Scene, Trial, always, edit_at, fill
from equiv.comparison.explain.recording import Changes, LoopEdit, Operation, Place, Recording
from equiv.programs.jaxpr import read_scan


def other_carries(scene: Scene) -> Iterator[Trial]:
    """Yield each initial carry of the candidate's loops around the divergence replaced by those of the reference."""
    for place in _loops(scene.right.recording, scene.pair.candidate):
        loop = read_scan(place[-1])
        starts = _starts(scene.right.recording, place)
        for index in range(loop.carries):
            mine = starts.get(index)
            if mine is None or scene.right.recording.moving[mine]:
                continue
            own, shape = scene.right.recording.numbers.get(mine), scene.right.recording.shapes[mine]
            for number in _initial_numbers(scene, shape):
                if number != own:
                    before = "other values" if own is None else f"{own:.6g}"
                    text = f"an initial carry of {number:.6g} in place of {before}"
                    edit = LoopEdit(place, partial(_start_with, loop.constants + index, number))
                    yield Trial(text, always(Changes(loops=(edit,))), Rank.START, scene.pair.candidate)


def _start_with(index: int, number: float, ins: list[Any]) -> list[Any]:
    return [fill(array, number) if place == index else array for place, array in enumerate(ins)]


def _starts(recording: Recording, place: Place) -> dict[int, int]:
    """Index among the carries of a loop to the value that it starts with."""
    return {index: value for value, uses in recording.starts.items() for other, index in uses if other == place}


def _loops(recording: Recording, operation: Operation | None) -> list[Place]:
    """The scans around an operation, or that start with what it makes."""
    if operation is None:
        return []
    around = [
        operation.place[: depth + 1] for depth, eqn in enumerate(operation.place[:-1]) if eqn.primitive.name == "scan"
    ]
    started = [place for value in operation.outs for place, _ in recording.starts.get(value, ())]
    return list(dict.fromkeys((*around, *started)))


def _initial_numbers(scene: Scene, shape: Sequence[int]) -> list[float]:
    """The numbers that fill initial carries of the reference, of the same number of elements first."""
    record = scene.left.recording
    size = int(np.prod(shape))
    similar = [
        record.numbers[value]
        for value in record.starts
        if value in record.numbers and np.prod(record.shapes[value]) == size
    ]
    return list(dict.fromkeys((*similar, 0.0)))


def other_direction(scene: Scene) -> Iterator[Trial]:
    """Yield the candidate's loops around the divergence run in the other direction."""
    for place in _loops(scene.right.recording, scene.pair.candidate):
        if read_scan(place[-1]).length > 1:
            edit = LoopEdit(place, list, reverse=True)
            text = f"the loop over {read_scan(place[-1]).length} steps in the other direction"
            shown = Pair(_loop_around(scene.pair.reference), Operation(place, "", (), (), ()))
            yield Trial(text, always(Changes(loops=(edit,))), Rank.PARAMETER, scene.pair.candidate, shown=shown)


def _loop_around(operation: Operation | None) -> Operation | None:
    """The outermost loop around an operation, as one operation."""
    loops = [] if operation is None else [one for one in operation.place[:-1] if one.primitive.name == "scan"]
    if operation is None or not loops:
        return None
    return Operation(operation.place[: operation.place.index(loops[0]) + 1], "", (), (), ())


def other_filling(scene: Scene) -> Iterator[Trial]:
    """Yield a constant array of the candidate filled with another number that the reference has."""
    operation = scene.pair.candidate
    if operation is None or operation.kind or any(scene.right.recording.moving[value] for value in operation.outs):
        return
    record = scene.right.recording
    own, size = record.numbers.get(operation.outs[0]), int(np.prod(record.shapes[operation.outs[0]]))
    left = scene.left.recording
    known = [n for value, n in left.numbers.items() if int(np.prod(left.shapes[value])) == size]
    carried = any(value in record.starts for value in operation.outs)
    for number in dict.fromkeys((*known, 0.0, 1.0)):
        if number != own:
            noun = "an initial carry" if carried else "a constant array"
            before = "" if own is None else f" in place of {own:.6g}"
            change: Callable[..., Any] = partial(_filled, number)
            yield Trial(f"{noun} of {number:.6g}{before}", always(edit_at(operation, change)), Rank.START, operation)


def _filled(number: float, evaluation: Any, eqn: Any, ins: list[Any]) -> list[Any]:
    return [fill(out, number) for out in evaluation.compute(eqn, ins)]
