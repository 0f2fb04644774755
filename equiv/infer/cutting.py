"""Which leaves fall into parts: those that one port packs and the other has one by one."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

from equiv.infer.grids import Cuts, spans
from equiv.infer.reading import Cutting, Reading

Wanted = Mapping[int, Mapping[int, tuple[Cuts, bool]]]
"""Living leaf to axis to the places where its program cuts it, and whether a loop does so turn by turn."""


Group = tuple[int, tuple[Any, ...], int, Cuts]
"""Side, size and kind of leaves, an axis, and where their program cuts it: cut all, or none."""


def cuts(readings: tuple[Reading, Reading]) -> tuple[Cutting, Cutting]:
    """Where the leaves of both ports have to be cut, so that they fall into the same parts.

    A leaf is cut where its own program takes it apart, if the other port has no leaf for it as it is; and if both
    programs take leaves of one size apart in the same way, for the parts may lie in another order.
    """
    wanted = (_wanted(readings[0]), _wanted(readings[1]))
    sizes = [Counter(_label(reading, node) for node in reading.skeleton.alive) for reading in readings]
    odd = {label for label in {*sizes[0], *sizes[1]} if sizes[0][label] != sizes[1][label]}
    ways = [{way[1:] for way in _groups(reading, side, wanted[side])} for side, reading in enumerate(readings)]
    groups = {
        group
        for side, reading in enumerate(readings)
        for group, turned in _groups(reading, side, wanted[side]).items()
        if group[1] in odd or (group[1:] in ways[0] & ways[1] and not turned)
    }
    while further := _better(readings, wanted, groups):
        groups -= further
    plans = [_plan(reading, side, wanted[side], groups) for side, reading in enumerate(readings)]
    return plans[0], plans[1]


def _better(readings: Sequence[Reading], wanted: Sequence[Wanted], groups: set[Group]) -> set[Group]:
    """One or two groups without which the ports are more alike: cuts that only one makes, as for rotary positions."""
    most = _apart(readings, wanted, groups)
    for number in (1, 2):
        some = {taken: _apart(readings, wanted, groups - set(taken)) for taken in combinations(sorted(groups), number)}
        if some and (best := min(some, key=some.__getitem__)) and some[best] < most:
            return set(best)
    return set()


def _label(reading: Reading, node: int) -> tuple[Any, ...]:
    return reading.skeleton.labels[node][:2]


def _wanted(reading: Reading) -> dict[int, dict[int, tuple[Cuts, bool]]]:
    """Living leaf to axis to the places where its program cuts it, and whether a loop does so turn by turn."""
    found: dict[int, dict[int, tuple[Cuts, bool]]] = {}
    for node in reading.skeleton.alive:
        leaf, axes = reading.blocks[node].leaf, dict[int, tuple[Cuts, bool]]()
        for axis in range(len(reading.shape(node))):
            if places := reading.flow.wanted.get((leaf, axis)):
                axes[axis] = places, False
        if length := reading.flow.turned.get(leaf):
            axes[0] = tuple(range(1, length)), True
        found[node] = axes
    return found


def _groups(reading: Reading, side: int, wanted: Wanted) -> dict[Group, bool]:
    return {
        (side, _label(reading, node), axis, places): turned
        for node, axes in wanted.items()
        for axis, (places, turned) in axes.items()
    }


def _plan(reading: Reading, side: int, wanted: Wanted, groups: set[Group]) -> dict[int, tuple[Cuts, ...]]:
    plan = {}
    for node, axes in wanted.items():
        kept = {axis: p for axis, (p, _) in axes.items() if (side, _label(reading, node), axis, p) in groups}
        if kept:
            plan[reading.blocks[node].leaf] = tuple(kept.get(axis, ()) for axis in range(len(reading.shape(node))))
    return plan


def _apart(readings: Sequence[Reading], wanted: Sequence[Wanted], groups: set[Group]) -> int:
    """How many elements lie in parts of a size that the other port has not as many of."""
    sizes = []
    for side, reading in enumerate(readings):
        plan = _plan(reading, side, wanted[side], groups)
        found: Counter[tuple[Any, ...]] = Counter()
        for node in reading.skeleton.alive:
            shape = reading.shape(node)
            cut = plan.get(reading.blocks[node].leaf, ((),) * len(shape))
            lengths = [[b - a for a, b in spans(places, size)] for places, size in zip(cut, shape, strict=True)]
            found.update((math.prod(part), _label(reading, node)[1]) for part in product(*lengths))
        sizes.append(found)
    odd = (sizes[0] - sizes[1]) + (sizes[1] - sizes[0])
    return sum(label[0] * number for label, number in odd.items())
