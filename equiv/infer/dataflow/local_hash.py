"""The role of a leaf in its own program: the same leaf of another, identical layer has the same role.

A tie that is decided in one layer is therefore decided in all of them.
"""

from collections.abc import Iterable
from typing import Any

from equiv.infer.dataflow.blocks import BlockedValue, WalkedEquation
from equiv.infer.dataflow.leaf_uses import bit_positions
from equiv.infer.dataflow.walk import Dataflow

NO_HASH = 0


def node_roles(flow: Dataflow) -> tuple[int, ...]:
    """Hash every node's uses: the equations up to the next uses of leaves, and their other operands."""
    steps, uses = flow.equations, flow.uses
    at = {path: place for place, path in enumerate(uses.paths)}
    ends = frozenset(at)
    up = _hash_operands(steps, ends)
    down = _hash_users(steps, ends, up)
    found: list[list[int]] = [[] for _ in range(max(uses.nodes, default=-1) + 1)]
    by_path = {step.path: step for step in steps}
    for place, node in enumerate(uses.nodes):
        step = by_path.get(uses.paths[place])
        own = hash((uses.labels[place], len(list(bit_positions(uses.predecessors[place])))))
        # How many predecessors, but not which: these are other leaves in each layer.
        found[node].append(own if step is None else hash((own, step.name, *(down[id(out)] for out in step.outs))))
    return tuple(hash(tuple(sorted(numbers))) for numbers in found)


def _hash_operands(steps: Iterable[WalkedEquation], ends: frozenset[Any]) -> dict[int, int]:
    """Hash how every value was computed, back to the last uses of leaves."""
    found: dict[int, int] = {}
    for step in steps:
        shapes = tuple(value.shape for value in step.outs)
        # Values are told apart by identity, as the equations keep them all alive: arrays of parts have no hash. At a
        # use of a leaf it stops, or layer 2 would have another role than layer 1 because layer 1 precedes it.
        known = () if step.path in ends else tuple(found.get(id(value), NO_HASH) for value in step.ins)
        for number, out in enumerate(step.outs):
            # An identity primitive returns its operand itself; the equation that made the value counts.
            found.setdefault(id(out), hash((step.name, number, shapes, known)))
    return found


def _hash_users(steps: Iterable[WalkedEquation], ends: frozenset[Any], up: dict[int, int]) -> dict[int, int]:
    """Hash what is computed from every value, up to the next uses of leaves."""
    steps = list(steps)
    users: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for step in reversed(steps):
        for out in step.outs:
            found[id(out)] = hash(tuple(sorted(users.get(id(out), []))))
        for number, value in enumerate(step.ins):
            siblings = tuple(up.get(id(other), NO_HASH) for other in step.ins if other is not value)
            further = () if step.path in ends else tuple(found[id(out)] for out in step.outs)
            users.setdefault(id(value), []).append(hash((step.name, number, _shape(value), siblings, further)))
    return found


def _shape(value: BlockedValue) -> tuple[int, ...]:
    return value.shape
