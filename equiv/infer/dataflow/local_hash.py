"""What a leaf does within its own program, equation by equation: the same leaf of another layer has the same role.

So a tie that is decided in one layer is decided in all.
"""

from collections.abc import Iterable
from typing import Any

from equiv.infer.dataflow.blocks import Step, Value
from equiv.infer.dataflow.leaf_uses import bits
from equiv.infer.dataflow.walk import Flow

EMPTY = 0


def roles(flow: Flow) -> tuple[int, ...]:
    """A number for every node: what is done with it up to the next uses of leaves, and to what it is added there."""
    steps, uses = flow.steps, flow.uses
    at = {path: place for place, path in enumerate(uses.paths)}
    ends = frozenset(at)
    up = _upwards(steps, ends)
    down = _downwards(steps, ends, up)
    found: list[list[int]] = [[] for _ in range(max(uses.nodes, default=-1) + 1)]
    by_path = {step.path: step for step in steps}
    for place, node in enumerate(uses.nodes):
        step = by_path.get(uses.paths[place])
        own = hash((uses.labels[place], len(list(bits(uses.incoming[place])))))
        found[node].append(own if step is None else hash((own, step.name, *(down[id(out)] for out in step.outs))))
    return tuple(hash(tuple(sorted(numbers))) for numbers in found)


def _upwards(steps: Iterable[Step], ends: frozenset[Any]) -> dict[int, int]:
    """For every value what it was computed of, back to the last uses of leaves."""
    found: dict[int, int] = {}
    for step in steps:
        shapes = tuple(value.shape for value in step.outs)
        known = () if step.path in ends else tuple(found.get(id(value), EMPTY) for value in step.ins)
        for number, out in enumerate(step.outs):
            found.setdefault(id(out), hash((step.name, number, shapes, known)))
    return found


def _downwards(steps: Iterable[Step], ends: frozenset[Any], up: dict[int, int]) -> dict[int, int]:
    """For every value what is computed of it, up to the next uses of leaves."""
    steps = list(steps)
    users: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for step in reversed(steps):
        for out in step.outs:
            found[id(out)] = hash(tuple(sorted(users.get(id(out), []))))
        for number, value in enumerate(step.ins):
            beside = tuple(up.get(id(other), EMPTY) for other in step.ins if other is not value)
            further = () if step.path in ends else tuple(found[id(out)] for out in step.outs)
            users.setdefault(id(value), []).append(hash((step.name, number, _shape(value), beside, further)))
    return found


def _shape(value: Value) -> tuple[int, ...]:
    return value.shape
