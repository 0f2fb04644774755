"""Pair the operations of both programs at which chains of differing values begin."""

from collections import Counter

from equiv.comparison.explain.alignment import Alignment
from equiv.comparison.explain.causes.trial import Pair
from equiv.comparison.explain.recording import Operation, Recording


def pair_frontiers(alignment: Alignment) -> list[Pair]:
    """Pair every operation of the candidate's frontier with the one of the reference's that takes the same values.

    Returns:
        The pairs in the order of the candidate's program; then operations of the reference alone, where the candidate
        has none at all.
    """
    ours, theirs = alignment.reference.frontier, alignment.candidate.frontier
    pairs = [Pair(_best_counterpart(alignment, operation, ours), operation) for operation in theirs]
    return pairs or [Pair(operation, None) for operation in ours[:1]]


def _best_counterpart(alignment: Alignment, operation: Operation, ours: tuple[Operation, ...]) -> Operation | None:
    return max(ours, key=lambda other: _likeness(alignment, other, operation), default=None)


def _likeness(alignment: Alignment, ours: Operation, theirs: Operation) -> tuple[int, bool, float]:
    """How close two operations are: operands that are the same values, the primitive, the part of the program."""
    left, right = alignment.reference, alignment.candidate
    taken = {value for operand in theirs.ins if right.recording.moving[operand] for value in right.matches[operand]}
    common = sum(value in taken for value in ours.ins)
    distance = abs(_position(left.recording, ours) - _position(right.recording, theirs))
    return common, ours.primitive == theirs.primitive, -distance


def _position(recording: Recording, operation: Operation) -> float:
    index = recording.maker.get(operation.outs[0], 0) if operation.outs else 0
    return index / max(1, len(recording.operations))


def count_reached(alignment: Alignment) -> Counter[object]:
    """Key of every operation of the candidate's frontier to the number of refuted outputs that a chain leads to."""
    side = alignment.candidate
    bits = {operation.key: 1 << number for number, operation in enumerate(side.frontier)}
    origins: dict[int, int] = {}
    for operation in side.recording.operations:
        lost = side.lost.intersection(operation.outs)
        if not lost:
            continue
        found = bits.get(operation.key, 0)
        for value in operation.ins:
            found |= origins.get(value, 0)
        origins.update(dict.fromkeys(lost, found))
    outputs = [side.recording.outputs[name] for name in alignment.refuted if name in side.recording.outputs]
    return Counter({key: sum(bool(origins.get(one, 0) & bit) for one in outputs) for key, bit in bits.items()})
