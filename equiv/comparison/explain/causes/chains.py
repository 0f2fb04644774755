"""Causes: several operations that one side leaves out or has too many, as a norm, or the update of an average."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import Pair, Rank, Scene, Trial, always, edit_at, fit, leaf_of
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.core.output_name import OutputName
from equiv.programs.jaxpr import locate_equation

FAR = 60
"""Operations after a divergence among which the two sides meet again."""

LONGEST = 40
"""Most operations that are taken for one step that is left out."""

Make = Callable[[RecordingEvaluation], Any]


def other_chains(scene: Scene) -> Iterator[Trial]:
    """Yield what the reference computes of shared values where the candidate uses one as it is, and the reverse."""
    mine = scene.pair.candidate
    if mine is not None and not mine.kind:
        yield from _left_out(scene, mine)
        yield from _too_many(scene, mine)
        yield from _in_place(scene, mine)
    yield from _outputs(scene)


def _left_out(scene: Scene, mine: Operation) -> Iterator[Trial]:
    """Yield a step that the candidate leaves out: its operation takes a shared value, the reference's what it makes."""
    if scene.pair.reference is None:
        return
    for other in scene.left.later(scene.pair.reference, FAR):
        index = _only_difference(scene, other, mine)
        if index is None or other.ins[index] not in scene.left.lost:
            continue
        steps = _steps_to(scene, other.ins[index])
        if steps:
            text = f"{_words(scene.left, steps)}, which {scene.names[1]} leaves out"
            make = partial(_rebuild, scene, other.ins[index])
            change = edit_at(mine, partial(_with_made, index, make))
            used = _used_places(scene, steps)
            changes = always(Changes(change.edits, used=used))
            yield Trial(text, changes, Rank.LEFT_OUT, mine, in_place=False, shown=Pair(steps[0], mine))
        return


def _too_many(scene: Scene, mine: Operation) -> Iterator[Trial]:
    """Yield a step that the candidate has too many, the reference's operation takes the shared value as it is.

    Where the same is found at several operations of one line, as for every leaf in an optimizer: all of them too.
    """
    found = [one for other in scene.left.frontier[:MOST_TOGETHER] if (one := _extra_steps(scene, other)) is not None]
    own = [one for one in found if one.steps[0] is mine or mine in one.steps]
    for first in own[:1]:
        yield _without_steps(scene, [first])
        together = [one for one in found if _line(one.steps[0]) == _line(first.steps[0])]
        if len(together) > 1:
            yield _without_steps(scene, together)


MOST_TOGETHER = 200
"""Most operations of the reference at which steps that the candidate has too many are looked for together."""


@dataclass(frozen=True, eq=False)
class _ExtraSteps:
    """Steps of the candidate between a shared value and an operation that takes that value in the reference."""

    ours: Operation
    reader: Operation
    index: int
    value: int
    steps: list[Operation]


def _extra_steps(scene: Scene, ours: Operation) -> _ExtraSteps | None:
    record, line = scene.right.recording, _line(ours)
    for reader in record.operations:
        if reader.primitive != ours.primitive or scene.right.lost.isdisjoint(reader.outs) or reader.kind:
            continue
        index = _only_difference(scene, ours, reader, unary=_line(reader) == line)
        if index is None or reader.ins[index] not in scene.right.lost:
            continue
        value = next((one for one in scene.left.matches[ours.ins[index]] if _is_readable(scene, one, reader)), None)
        steps = [] if value is None else _lost_steps(scene.right, reader.ins[index])
        if value is not None and steps:
            return _ExtraSteps(ours, reader, index, value, steps)
    return None


def _without_steps(scene: Scene, found: Sequence[_ExtraSteps]) -> Trial:
    edits = tuple(
        Edit(one.reader.place, partial(_with_made, one.index, partial(_read, scene, one.value))) for one in found
    )
    changes = always(Changes(edits, used=_places(scene.right, [one.value for one in found])))
    first = found[0]
    words = _words(scene.right, first.steps).removeprefix("the ")
    text = f"no {words}{f' at {len(found)} places' if len(found) > 1 else ''}"
    shown = Pair(first.ours, first.steps[0])
    return Trial(text, changes, Rank.LEFT_OUT, first.reader, in_place=False, places=len(found), shown=shown)


def _lost_steps(side: AlignedSide, value: int) -> list[Operation]:
    """The operations that differ and that a value is made by; empty: too many, or a loop among them."""
    found, todo = dict[int, Operation](), [value]
    while todo:
        one = todo.pop()
        maker = side.recording.maker_of(one)
        if maker is None or one not in side.lost or id(maker) in found:
            continue
        if maker.kind or len(found) >= LONGEST:
            return []
        found[id(maker)] = maker
        todo += maker.ins
    return sorted(found.values(), key=lambda one: side.recording.maker[one.outs[0]])


def _line(operation: Operation) -> str:
    return str(locate_equation(operation.place)[0])


def _in_place(scene: Scene, mine: Operation) -> Iterator[Trial]:
    """Yield a few steps of the reference in place of the few of the candidate that one operation reads in their stead.

    As of a mean in place of a maximum.
    """
    if scene.pair.reference is None:
        return
    ours, theirs = scene.left.later(scene.pair.reference, NEAR_STEPS), scene.right.later(mine, NEAR_STEPS)
    for reader in theirs[1:]:
        for other in ours:
            index = _only_difference(scene, other, reader)
            if index is None or other.ins[index] not in scene.left.lost or reader.ins[index] not in scene.right.lost:
                continue
            steps, own = _steps_to(scene, other.ins[index]), _lost_steps(scene.right, reader.ins[index])
            words = _words(scene.left, steps), _words(scene.right, own)
            short = 0 < len(steps) <= NAMED and 0 < len(own) <= NAMED
            if short and words[0] != words[1] and reader.turn == mine.turn:
                text = f"{words[0]} in place of {words[1]}"
                make = partial(_rebuild, scene, other.ins[index])
                edit = edit_at(reader, partial(_with_made, index, make))
                changes = always(Changes(edit.edits, used=_used_places(scene, steps)))
                yield Trial(text, changes, Rank.REBUILT, reader, shown=Pair(steps[0], own[0]))
            return


NEAR_STEPS = 8
"""Operations after a divergence among which a few steps are compared."""


def _outputs(scene: Scene) -> Iterator[Trial]:
    """Yield outputs that are a value as it was before a step, and those that are one after a step too many."""
    left, right = scene.left.recording, scene.right.recording
    for name in scene.alignment.refuted:
        ours, theirs = left.outputs.get(name), right.outputs.get(name)
        if ours is None or theirs is None:
            continue
        if theirs not in scene.right.lost:
            steps = _steps_to(scene, ours)
            if steps:
                text = f"the update of `{name.leaf}`" if name.leaf else _words(scene.left, steps)
                shown = Pair(steps[-1], right.maker_of(theirs))
                make = partial(_rebuild, scene, ours)
                yield _output_trial(
                    f"{text}, which {scene.names[1]} leaves out", name, make, _used_places(scene, steps), shown
                )
        elif matched := [one for one in _twin(scene, ours) if one in right.maker]:
            maker = right.maker_of(theirs)
            what = f"only one update of `{name.leaf}`" if name.leaf else "fewer operations at the end"
            make = partial(_read, scene, matched[0])
            shown = Pair(left.maker_of(ours), maker)
            yield _output_trial(what, name, make, _places(scene.right, matched[:1]), shown)


def _output_trial(text: str, name: OutputName, make: Make, used: frozenset[Any], shown: Pair) -> Trial:
    changes = always(Changes(used=used, outputs=((name, make),)))
    return Trial(text, changes, Rank.LEFT_OUT, shown.candidate, in_place=False, shown=shown)


def _only_difference(scene: Scene, ours: Operation, theirs: Operation, unary: bool = False) -> int | None:
    """The index of the only operand that is another value; None: there is no such, or the operations differ."""
    if (
        ours.primitive != theirs.primitive
        or len(ours.ins) != len(theirs.ins)
        or ours.kind
        or (len(ours.ins) < 2 and not unary)
    ):
        return None
    shapes = scene.left.recording.shapes, scene.right.recording.shapes
    others = [
        index
        for index, (one, other) in enumerate(zip(ours.ins, theirs.ins, strict=True))
        if other not in scene.left.matches[one]
    ]
    if len(others) != 1 or shapes[0][ours.ins[others[0]]] != shapes[1][theirs.ins[others[0]]]:
        return None
    return others[0]


def _steps_to(scene: Scene, value: int) -> list[Operation]:
    """The operations that make a value of the reference from what the candidate computes too; empty: too many."""
    record, found, todo = scene.left.recording, dict[int, Operation](), [value]
    while todo:
        maker = record.maker_of(todo.pop())
        if maker is None or id(maker) in found:
            continue
        if maker.kind or len(found) >= LONGEST:
            return []
        found[id(maker)] = maker
        todo += [one for one in maker.ins if not _twin(scene, one)]
    return sorted(found.values(), key=lambda one: record.maker[one.outs[0]])


def _twin(scene: Scene, value: int) -> tuple[int, ...]:
    """The values of the candidate that are one of the reference, in its shape."""
    left, right = scene.left.recording, scene.right.recording
    if not left.moving[value]:
        return ()
    return tuple(one for one in scene.left.matches[value] if right.shapes[one] == left.shapes[value])


def _rebuild(scene: Scene, value: int, evaluation: RecordingEvaluation) -> Any:
    """A value of the reference, computed by its operations from the candidate's values."""
    record = scene.left.recording
    maker = record.maker_of(value)
    if value in record.inputs:
        return evaluation.given[record.inputs[value]]
    if maker is None:
        return np.full(record.shapes[value], record.numbers[value])
    ins = []
    for one, atom in zip(maker.ins, maker.eqn.invars, strict=True):
        twins = _twin(scene, one)
        array = _read(scene, twins[0], evaluation) if twins else _rebuild(scene, one, evaluation)
        ins.append(fit(array, np.empty(atom.aval.shape, atom.aval.dtype)))
    return evaluation.compute(maker.eqn, ins)[maker.outs.index(value)]


def _read(scene: Scene, value: int, evaluation: RecordingEvaluation) -> Any:
    record = scene.right.recording
    maker = record.maker_of(value)
    if maker is None:
        return evaluation.given[record.inputs[value]]
    return evaluation.stash[maker.place][maker.outs.index(value)]


def _with_made(index: int, make: Make, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
    given = list(ins)
    given[index] = fit(make(evaluation), ins[index])
    return evaluation.compute(eqn, given)


def _used_places(scene: Scene, steps: Sequence[Operation]) -> frozenset[Any]:
    values = [twins[0] for one in steps for value in one.ins if (twins := _twin(scene, value))]
    return _places(scene.right, values)


def _places(side: AlignedSide, values: Sequence[int]) -> frozenset[Any]:
    makers = (side.recording.maker_of(value) for value in values)
    return frozenset(maker.place for maker in makers if maker is not None)


def _is_readable(scene: Scene, value: int, before: Operation) -> bool:
    record = scene.right.recording
    maker = record.maker_of(value)
    if maker is None:
        return value in record.inputs
    return not maker.kind and maker.turn == before.turn and record.maker[maker.outs[0]] < record.maker[before.outs[0]]


def _words(side: AlignedSide, steps: Sequence[Operation]) -> str:
    """Steps in words: the layer whose leaves they use, else how many they are and on which line."""
    if not steps:
        return ""
    leaves = (leaf_of(side, value) for one in steps for value in one.ins)
    layers = dict.fromkeys(name.leaf.rpartition("/")[0] or name.leaf for name in leaves if name is not None)
    if len(layers) == 1:
        return f"`{next(iter(layers))}`"
    if len(steps) <= NAMED:
        return "the " + ", ".join(_step_words(side, one) for one in steps)
    line = locate_equation(steps[0].place)[1]
    return f"the {len(steps)} operations{f' from line {line.line} on' if line else ''}"


NAMED = 3
"""Most steps that are named one by one."""


def _step_words(side: AlignedSide, operation: Operation) -> str:
    number = next((side.recording.numbers[one] for one in operation.ins if one in side.recording.numbers), None)
    return operation.primitive if number is None else f"{operation.primitive} with {number:.6g}"
