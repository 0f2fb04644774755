"""Causes: leaves, layers or blocks in each other's place, and a leaf taken for another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import (
    LEAF_VIEWS,
    Pair,
    Rank,
    Scene,
    Trial,
    always,
    edit_operand,
    fit,
    is_close,
    leaf_of,
    near_operations,
)
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.core.output_name import InputName
from equiv.programs.primitives import CONTRACTIONS

MOST_BEFORE = 400
"""Operations before a value among which the leaves that it depends on are looked for."""


def other_leaves(scene: Scene) -> Iterator[Trial]:
    """Yield the leaves that only the candidate takes near the divergence, exchanged with those of the reference."""
    ours = _leaves(scene.left, scene.pair.reference)
    theirs = _leaves(scene.right, scene.pair.candidate)
    shapes = _shapes(scene)
    for mine in theirs:
        for other in ours:
            if mine == other or shapes.get(mine) is None or shapes.get(mine) != shapes.get(other):
                continue
            # Where both sides use both, the names say that neither is taken for the other.
            rank = Rank.NAMES if mine not in ours or other not in theirs else Rank.GUESS
            yield from _exchanges(scene, mine, other, shapes, rank)


def _exchanges(
    scene: Scene, mine: InputName, other: InputName, shapes: dict[InputName, tuple[int, ...]], rank: Rank
) -> Iterator[Trial]:
    """Yield one leaf in place of another, and the layers or blocks that they are in, there and everywhere."""
    single, site = [(mine, other)], scene.pair.candidate
    shown = Pair(
        _user_of(scene.left, other, near_operations(scene.left, scene.pair.reference)),
        _user_of(scene.right, mine, near_operations(scene.right, site)),
    )
    for first, second, pairs in (*_wider_exchanges(mine, other, shapes), (str(mine), str(other), single)):
        text = f"`{second}` in place of `{first}` there"
        yield Trial(text, always(_use_others(scene, dict(pairs))), rank, site, shown=shown)
        if pairs is not single:
            text = f"`{first}` and `{second}` exchanged"
            yield Trial(text, always(_exchange(pairs)), rank, site, shown=shown)
    text = f"`{mine}` and `{other}` exchanged"
    yield Trial(text, always(_exchange(single)), rank, site, places=2, shown=shown)


def other_calls(scene: Scene) -> Iterator[Trial]:
    """Yield the result of a layer that the reference calls, where the candidate calls another one again."""
    mine = scene.pair.candidate
    if mine is None or mine.kind:
        return
    for other in near_operations(scene.left, scene.pair.reference):
        if other.primitive != mine.primitive or len(other.ins) != len(mine.ins):
            continue
        same = [own in scene.left.matches[value] for own, value in zip(mine.ins, other.ins, strict=True)]
        for index, (own, value) in enumerate(zip(mine.ins, other.ins, strict=True)):
            wanted, called = _call_before(scene.left, value), _call_before(scene.right, own)
            if not any(same) or wanted is None or called is None or value not in scene.left.lost:
                continue
            similar = scene.left.recording.shapes[value] == scene.right.recording.shapes[own]
            if similar and wanted[0] != called[0] and called[1] in scene.left.matches[wanted[1]]:
                shown = Pair(wanted[2], called[2])
                text = f"`{_layer_of(wanted[0])}` in place of `{_layer_of(called[0])}` there"
                made = partial(_with_result, scene, mine, index, value)
                yield Trial(text, made, Rank.NAMES, mine, index, shown=shown, fixed=True)


def _call_before(side: AlignedSide, value: int) -> tuple[InputName, int, Operation] | None:
    """The kernel of the layer that gives a value, what the layer is given, its product; None: no layer is near."""
    record = side.recording
    for _ in range(STEPS_OF_A_LAYER):
        maker = record.maker_of(value)
        if maker is None or not maker.ins:
            return None
        leaves = {one: leaf for one in maker.ins if (leaf := leaf_of(side, one)) is not None}
        given = [one for one in maker.ins if one not in leaves and record.moving[one]]
        if not given:
            return None
        kernels = [leaf for one, leaf in leaves.items() if maker.primitive in CONTRACTIONS]
        if kernels:
            return kernels[0], given[0], maker
        value = given[0]
    return None


STEPS_OF_A_LAYER = 8
"""Operations between the product with a kernel and what a layer returns, as a bias and other shapes."""


def _layer_of(leaf: InputName) -> str:
    return re.split(r"[./](?=[^./]*$)", leaf.leaf)[0]


def _with_result(scene: Scene, operation: Operation, index: int, value: int, probe: int) -> Changes:
    return edit_operand(operation, index, partial(_instead, scene.ours[probe][value]))


def _instead(wanted: np.ndarray, array: np.ndarray) -> np.ndarray:
    return fit(wanted, array)


def other_groups(scene: Scene) -> Iterator[Trial]:
    """Yield all leaves behind an operand exchanged with those behind the value that the reference gives its operation.

    As of gates: each has its own leaves, and the candidate applies the function of one to what is another.
    """
    mine = scene.pair.candidate
    if mine is None or mine.kind:
        return
    for other in scene.left.frontier:
        if other.primitive != mine.primitive or other.kind:
            continue
        for own, value in zip(mine.ins, other.ins, strict=False):
            for wanted in scene.left.matches[value]:
                if own != wanted:
                    yield from _exchange_behind(scene, own, wanted, mine)


def other_roles(scene: Scene) -> Iterator[Trial]:
    """Yield the leaves behind both operands of a product exchanged, where the reference has these in the other order.

    As of queries and keys: the product has the same elements, transposed, and differs only where their order counts.
    """
    ours, theirs = scene.pair.reference, scene.pair.candidate
    if ours is None or theirs is None or ours.kind or theirs.kind:
        return
    for value in ours.ins:
        for own in scene.left.matches[value]:
            if own in theirs.ins and not is_close(scene.ours[0].get(value), scene.theirs[0].get(own)):
                found = _products_before(scene, value, own)
                if found is not None:
                    yield from _exchange_behind(scene, found.ins[0], found.ins[1], theirs)


def _products_before(scene: Scene, value: int, own: int) -> Operation | None:
    """The candidate's product behind a value, where the reference's takes the same two operands in the other order."""
    for _ in range(STEPS_OF_A_LAYER):
        one, other = scene.left.recording.maker_of(value), scene.right.recording.maker_of(own)
        if one is None or other is None or one.primitive != other.primitive:
            return None
        moving = [
            [number for number in operation.ins if side.recording.moving[number]]
            for side, operation in ((scene.left, one), (scene.right, other))
        ]
        if len(moving[0]) == 2 == len(moving[1]) and one.primitive in CONTRACTIONS | {"mul"}:
            straight = [b in scene.left.matches[a] for a, b in zip(one.ins, other.ins, strict=True)]
            crossed = [b in scene.left.matches[a] for a, b in zip(one.ins, other.ins[::-1], strict=True)]
            return other if all(crossed) and not any(straight) else None
        if len(moving[0]) != 1 or len(moving[1]) != 1:
            return None
        (value,), (own,) = moving
    return None


def _exchange_behind(scene: Scene, own: int, wanted: int, site: Operation) -> Iterator[Trial]:
    """Yield the leaves that one value of the candidate depends on exchanged with those of another."""
    shapes = _shapes(scene)
    one, two = (_leaves_before(scene.right, number) for number in (own, wanted))
    first, second = (_sorted(found, shapes) for found in (one - two, two - one))
    if first and [shapes[n] for n in first] == [shapes[n] for n in second]:
        words = f"{_listed(first)} and {_listed(second)}"
        pairs = list(zip(first, second, strict=True))
        shown = Pair(_user_of(scene.left, second[0]), _user_of(scene.right, first[0]))
        yield Trial(f"{words} exchanged", always(_exchange(pairs)), Rank.NAMES, site, shown=shown)


def _user_of(side: AlignedSide, name: InputName, near: Sequence[Operation] = ()) -> Operation | None:
    """The operation that takes a leaf: of those near, else the first in the program."""
    for operation in (*near, *side.recording.operations):
        if operation.primitive not in LEAF_VIEWS and any(leaf_of(side, value) == name for value in operation.ins):
            return operation
    return None


def _use_others(scene: Scene, others: Mapping[InputName, InputName]) -> Changes:
    """The changes that use other leaves in the candidate's operations near the divergence, and nowhere else.

    Of each leaf the nearest use: a layer that is called again may be near, too.
    """
    edits, taken = [], set[InputName]()
    made, middle = scene.right.recording.maker, scene.pair.candidate
    at = 0 if middle is None else made[middle.outs[0]]
    near = near_operations(scene.right, middle)
    for operation in sorted(near, key=lambda one: abs(made[one.outs[0]] - at)):
        used = {index: leaf_of(scene.right, value) for index, value in enumerate(operation.ins)}
        wanted = {
            index: others[leaf]
            for index, leaf in used.items()
            if leaf is not None and leaf in others and leaf not in taken
        }
        if wanted and not operation.kind:
            taken |= {leaf for index, leaf in used.items() if leaf is not None and index in wanted}
            ways = {index: _views_of(scene.right, operation.ins[index]) for index in wanted}
            edits.append(Edit(operation.place, partial(_with_leaves, wanted, ways)))
    return Changes(tuple(edits))


def _views_of(side: AlignedSide, value: int) -> list[Operation]:
    """The operations that make a value of a leaf, in order."""
    found = []
    while (maker := side.recording.maker_of(value)) is not None:
        found.append(maker)
        value = maker.ins[0]
    return found[::-1]


def _with_leaves(
    wanted: Mapping[int, InputName],
    ways: Mapping[int, Sequence[Operation]],
    evaluation: RecordingEvaluation,
    eqn: Any,
    ins: list[Any],
) -> Sequence[Any]:
    given = list(ins)
    for index, name in wanted.items():
        array = evaluation.given[name]
        for view in ways[index]:
            (array,) = evaluation.compute(view.eqn, [array])
        given[index] = array
    return evaluation.compute(eqn, given)


def _shapes(scene: Scene) -> dict[InputName, tuple[int, ...]]:
    record = scene.right.recording
    return {name: record.shapes[value] for value, name in record.inputs.items() if name.kind == "leaf"}


def _exchange(pairs: Sequence[tuple[InputName, InputName]]) -> Changes:
    return Changes(inputs=tuple(way for one, other in pairs for way in ((one, other), (other, one))))


def _listed(names: Sequence[InputName]) -> str:
    """Leaves in words: their layer, where all are of one."""
    layers = {_layer_of(name) for name in names}
    if len(layers) == 1 and len(names) > 1:
        return f"`{layers.pop()}`"
    return ", ".join(f"`{name}`" for name in names)


def _sorted(names: set[InputName], shapes: dict[InputName, tuple[int, ...]]) -> list[InputName]:
    return sorted(names, key=lambda name: (shapes[name], name))


def _wider_exchanges(
    one: InputName, other: InputName, shapes: dict[InputName, tuple[int, ...]]
) -> Iterator[tuple[str, str, list[tuple[InputName, InputName]]]]:
    """Yield the layers or blocks in which two leaves are, down from the first part in which their names differ."""
    parts = [re.split(r"([./])", name.leaf) for name in (one, other)]
    if len(parts[0]) != len(parts[1]):
        return
    differ = [at for at, (left, right) in enumerate(zip(*parts, strict=True)) if left != right]
    if len(differ) != 1 or differ[0] == len(parts[0]) - 1:
        return
    first, second = ("".join(names[: differ[0] + 1]) for names in parts)
    pairs = []
    for name, shape in shapes.items():
        if name.leaf.startswith((f"{first}.", f"{first}/")):
            twin = InputName("leaf", leaf=second + name.leaf[len(first) :])
            if shapes.get(twin) != shape:
                return
            pairs.append((name, twin))
    yield first, second, pairs


def _leaves(side: AlignedSide, operation: Operation | None) -> list[InputName]:
    found = (leaf_of(side, value) for one in near_operations(side, operation) for value in one.ins)
    return list(dict.fromkeys(name for name in found if name is not None))


def _leaves_before(side: AlignedSide, value: int) -> set[InputName]:
    """The leaves that a value depends on, as far as they are near."""
    record, todo, seen, found = side.recording, [value], {value}, set[InputName]()
    while todo and len(seen) < MOST_BEFORE:
        one = todo.pop(0)
        name, maker = record.inputs.get(one), record.maker_of(one)
        if name is not None and name.kind == "leaf":
            found.add(name)
        for operand in () if maker is None else maker.ins:
            if operand not in seen:
                seen.add(operand)
                todo.append(operand)
    return found
