"""Causes: an operation takes another value of the candidate than the reference's takes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import Pair, Rank, Scene, Trial, always, fit, leaf_of
from equiv.comparison.explain.pairs import pair_frontiers
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.programs.jaxpr import locate_equation

Replacement = tuple[Pair, int, int]
"""A pair of operations, the index of an operand, and the value of the candidate that belongs there."""


def other_operands(scene: Scene) -> Iterator[Trial]:
    """Yield an operand replaced by the value that the reference takes there, which the candidate computes too.

    As of a residual that skips too much, or a gate and what is left of 1 in each other's place: all operations where
    chains begin together, then the one alone.
    """
    own = list(_replacements(scene, scene.pair))
    everywhere = [one for pair in pair_frontiers(scene.alignment) for one in _replacements(scene, pair)]
    if own and len({id(pair.candidate) for pair, _, _ in everywhere}) > 1:
        yield _make_trial(scene, everywhere)
    for one in own:
        yield _make_trial(scene, [one])


def _replacements(scene: Scene, pair: Pair) -> Iterator[Replacement]:
    """Yield the operands of the candidate's operation that the reference's does not take, each with what it takes."""
    ours, theirs = pair.reference, pair.candidate
    if ours is None or theirs is None or ours.kind or theirs.kind or ours.primitive != theirs.primitive:
        return
    if len(ours.ins) != len(theirs.ins) or len(ours.ins) > MOST_OPERANDS:
        return
    matches = scene.left.matches
    wanted = [value for value in ours.ins if not any(own in matches[value] for own in theirs.ins)]
    spare = [
        index
        for index, own in enumerate(theirs.ins)
        if scene.right.recording.moving[own] and not any(own in matches[value] for value in ours.ins)
    ]
    if len(wanted) != 1 or len(spare) != 1:
        return
    for value in matches[wanted[0]]:
        if _can_be_read(scene.right, value, theirs):
            yield pair, spare[0], value
            return


MOST_OPERANDS = 3
"""Most operands of an operation of which one is replaced."""


def _can_be_read(side: AlignedSide, value: int, before: Operation) -> bool:
    """Whether a value is there when an operation is run: made before it, in no other loop, of its shape."""
    record = side.recording
    maker = record.maker_of(value)
    if maker is None or maker.kind:
        return value in record.inputs
    first = record.maker[maker.outs[0]] < record.maker[before.outs[0]]
    return first and maker.turn == before.turn and leaf_of(side, value) is None


def _make_trial(scene: Scene, found: Sequence[Replacement]) -> Trial:
    by_place: dict[int, tuple[Operation, dict[int, int]]] = {}
    for pair, index, value in found:
        if pair.candidate is not None:
            by_place.setdefault(id(pair.candidate), (pair.candidate, {}))[1][index] = value
    record = scene.right.recording
    edits, used = [], set[tuple[Any, ...]]()
    for operation, values in by_place.values():
        makers = {value: record.maker_of(value) for value in values.values()}
        used |= {maker.place for maker in makers.values() if maker is not None}
        edits.append(Edit(operation.place, partial(_with_values, scene, values)))
    (pair, index, value), count = found[0], len(by_place)
    operation = pair.candidate
    before = "" if operation is None else _value_words(scene.right, operation.ins[index])
    name = "" if operation is None else operation.primitive
    text = f"{_value_words(scene.right, value)} in place of {before} in `{name}`"
    if count > 1:
        text += f" and the like at {count - 1} more"
    changes = always(Changes(tuple(edits), used=frozenset(used)))
    return Trial(text, changes, Rank.PARAMETER, operation, places=count)


def _with_values(
    scene: Scene, values: Mapping[int, int], evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]
) -> Sequence[Any]:
    record, given = scene.right.recording, list(ins)
    for index, value in values.items():
        maker = record.maker_of(value)
        array = (
            evaluation.given[record.inputs[value]]
            if maker is None
            else evaluation.stash[maker.place][maker.outs.index(value)]
        )
        given[index] = fit(array, ins[index])
    return evaluation.compute(eqn, given)


def _value_words(side: AlignedSide, value: int) -> str:
    """A value in words: the leaf or input that it is, else its operation and line."""
    leaf, maker = leaf_of(side, value), side.recording.maker_of(value)
    if leaf is not None:
        return f"`{leaf}`"
    if maker is None:
        return f"`{side.recording.inputs[value]}`" if value in side.recording.inputs else "a constant"
    line = locate_equation(maker.place)[1]
    noun = NOUNS.get(maker.primitive, f"result of {maker.primitive}")
    return f"the {noun}{f' of line {line.line}' if line else ''}"


NOUNS = {"add": "sum", "sub": "difference", "mul": "product", "div": "quotient"}
