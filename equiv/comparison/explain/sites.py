"""The two operations at which programs part, in the user's words: layer, line, operands and constants."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import Pair, Scene, leaf_of, scalar_operands
from equiv.comparison.explain.recording import Operation
from equiv.core.first_difference import OPTIMIZER, FirstDifference, SourceLine, strip_transforms
from equiv.core.leaves import LeafTable
from equiv.programs.jaxpr import locate_equation

FAR = 60
"""Operations before and after one among which the leaves of its layer are looked for."""


def is_update(side: AlignedSide, operation: Operation) -> bool:
    """Whether an operation of a train step belongs to the update: nothing that is differentiated depends on it."""
    if operation.is_differentiated:
        return False
    reached = set(operation.outs)
    for other in side.recording.operations[side.recording.maker[operation.outs[0]] + 1 :] if operation.outs else ():
        if not reached.isdisjoint(other.ins):
            if other.is_differentiated:
                return False
            reached.update(other.outs)
    return bool(operation.outs)


def describe_sites(
    scene: Scene, tables: tuple[LeafTable, LeafTable], updates: bool = False, shown: Pair | None = None
) -> tuple[FirstDifference, ...]:
    """Describe where two programs part: the reference's operation, then the candidate's.

    Args:
        scene: the divergence.
        tables: the leaf tables of both ports.
        updates: whether the program is a train step.
        shown: the operations that are shown in place of those at which the chains begin.
    """
    reference, candidate = (scene.pair.reference, scene.pair.candidate)
    if shown is not None:
        reference, candidate = shown.reference or reference, shown.candidate or candidate
    sides = (scene.left, reference, scene.pair.reference), (scene.right, candidate, scene.pair.candidate)
    return tuple(
        _describe_beside(name, side, (operation, beside), table, updates)
        for name, (side, operation, beside), table in zip(scene.names, sides, tables, strict=True)
        if operation is not None
    )


def _describe_beside(
    port: str,
    side: AlignedSide,
    operations: tuple[Operation, Operation | None],
    table: LeafTable,
    updates: bool,
) -> FirstDifference:
    """Describe an operation; one without leaves near it, as a whole loop, is in the layer of the other."""
    found = describe_site(port, side, operations[0], table, updates)
    if found.layer or operations[1] is None:
        return found
    beside = describe_site(port, side, operations[1], table, updates)
    return replace(found, layer=beside.layer, module=beside.module)


def describe_site(
    port: str, side: AlignedSide, operation: Operation, table: LeafTable, updates: bool = False
) -> FirstDifference:
    """Describe one operation.

    Args:
        port: whose it is.
        side: its program.
        operation: the operation.
        table: the leaf table of the port.
        updates: whether the program is a train step, in which the operation may belong to the optimizer.
    """
    location, user_line, stack = locate_equation(operation.place)
    own = location and user_line and location.short == user_line.short
    leaves = [leaf_of(side, value) for value in operation.ins]
    names = [str(side.recording.inputs[value]) for value in operation.ins if value in side.recording.inputs]
    constants = [f"{number:.6g}" for _, number in scalar_operands(side, operation)]
    layer, module = (
        (OPTIMIZER, "") if updates and is_update(side, operation) else _layer_of(side, operation, user_line, table)
    )
    return FirstDifference(
        port,
        operation.primitive,
        tuple(dict.fromkeys((*names, *(str(leaf) for leaf in leaves if leaf is not None)))),
        tuple(dict.fromkeys(constants)),
        location,
        None if own else user_line,
        stack,
        layer,
        module or strip_transforms(stack),
        operation.turn,
    )


def _layer_of(
    side: AlignedSide, operation: Operation, user_line: SourceLine | None, table: LeafTable
) -> tuple[str, str]:
    """The layer whose leaves are nearest, as canonical path and as the library's own; empty where there are none.

    Leaves that are used on the same line of the user's code, or in the same module, come first.
    """
    stack = strip_transforms(str(operation.eqn.source_info.name_stack))
    found: list[tuple[tuple[bool, bool, int], str]] = []
    for distance, other in enumerate(_around(side, operation)):
        for value in other.ins:
            leaf = leaf_of(side, value)
            if leaf is None or leaf.leaf not in table.names():
                continue
            line = locate_equation(other.place)[1]
            module = strip_transforms(str(other.eqn.source_info.name_stack))
            found.append(((not stack or module != stack, line != user_line, distance), leaf.leaf))
    if not found:
        return "", ""
    name = min(found)[1]
    native = table[name].key.path
    return name.rpartition("/")[0] or name, native.rpartition("/")[0] or native


def _around(side: AlignedSide, operation: Operation) -> Iterator[Operation]:
    """Yield an operation, then those before and after it in the flow of values, the nearest first."""
    yield operation
    record, seen = side.recording, {id(operation)}
    before, after = [operation], [operation]
    for _ in range(FAR):
        before = _unseen((maker for one in before for value in one.ins if (maker := record.maker_of(value))), seen)
        yield from before
        after = _unseen((reader for one in after for value in one.outs for reader in side.readers.get(value, ())), seen)
        yield from after
        if len(seen) > FAR or not (before or after):
            return


def _unseen(operations: Iterator[Operation], seen: set[int]) -> list[Operation]:
    found = []
    for one in operations:
        if id(one) not in seen:
            seen.add(id(one))
            found.append(one)
    return found


def worst_values(scene: Scene) -> tuple[str, str]:
    """The values of both sides at the worst element of the result; empty where the two have no such element."""
    ours, theirs = scene.pair.reference, scene.pair.candidate
    if ours is None or theirs is None or not ours.outs or not theirs.outs:
        return "", ""
    one, other = scene.ours[0].get(ours.outs[0]), scene.theirs[0].get(theirs.outs[0])
    if one is None or other is None or one.shape != other.shape or not one.size:
        return "", ""
    if {one.dtype.kind, other.dtype.kind} - set("fiu"):
        return "", ""
    with np.errstate(all="ignore"):
        at = int(np.nanargmax(np.abs(_flat(one) - _flat(other)))) if not np.isnan(one - other).all() else 0
    return f"{_flat(one)[at]:.9g}", f"{_flat(other)[at]:.9g}"


def _flat(array: np.ndarray) -> Any:
    return np.asarray(array, "float64").ravel()


def shape_words(shapes: Sequence[tuple[int, ...]]) -> str:
    """Shapes as they are written: `[2, 3] and [3]`."""
    return " and ".join(str(list(shape)) for shape in shapes)
