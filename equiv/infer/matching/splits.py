"""Which leaves fall into parts: those that one port packs and the other has one by one."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import combinations, product
from typing import Any

from equiv.infer.dataflow.blocks import Cuts, spans
from equiv.infer.dataflow.port_graph import Cutting, Reading, recut
from equiv.infer.matching.colour_refinement import Palette, Side, settled

Wanted = Mapping[int, Mapping[int, tuple[Cuts, bool]]]
"""Living leaf to axis to the places where its program cuts it, and whether a loop does so turn by turn."""


Kinds = Mapping[tuple[Any, ...], int]
"""Label, shape and cuts of leaves to how many there are."""


Group = tuple[int, tuple[Any, ...], int, Cuts]
"""Side, size and kind of leaves, an axis, and where their program cuts it: cut all, or none."""


SEARCHED, TRIED = 12, 8
"""Groups up to which every choice of them is weighed, and choices of equal weight up to which each is tried."""


def cuts(readings: tuple[Reading, Reading]) -> tuple[Cutting, Cutting]:
    """Where the leaves of both ports have to be cut, so that they fall into the same parts.

    A leaf is cut where its own program takes it apart, if the other port has no leaf for it as it is; and if both
    programs take leaves of one size apart in the same way, for the parts may lie in another order.
    """
    wanted = (_wanted(readings[0]), _wanted(readings[1]))
    sizes = [Counter(_label(reading, node) for node in reading.skeleton.alive) for reading in readings]
    odd = {label for label in {*sizes[0], *sizes[1]} if sizes[0][label] != sizes[1][label]}
    found = [_groups(reading, side, wanted[side]) for side, reading in enumerate(readings)]
    shared = {group[1:] for group in found[0]} & {group[1:] for group in found[1]}
    groups = {
        group
        for some in found
        for group, turned in some.items()
        if group[1] in odd or (group[1:] in shared and not turned)
    }
    if not groups:
        return {}, {}
    kinds = [_kinds(reading, wanted[side]) for side, reading in enumerate(readings)]
    choices = _choices(kinds, groups)
    plans = [tuple(_plan(r, side, wanted[side], some) for side, r in enumerate(readings)) for some in choices]
    best = plans[0] if len(plans) == 1 else min(plans, key=lambda plan: _unplaced(readings, plan))
    return best[0], best[1]


def _label(reading: Reading, node: int) -> tuple[Any, ...]:
    return reading.skeleton.labels[node][:2]


def _wanted(reading: Reading) -> Wanted:
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
    """Groups, and whether a loop cuts them turn by turn."""
    return {
        (side, _label(reading, node), axis, places): turned
        for node, axes in wanted.items()
        for axis, (places, turned) in axes.items()
    }


def _plan(reading: Reading, side: int, wanted: Wanted, groups: Set[Group]) -> dict[int, tuple[Cuts, ...]]:
    plan = {}
    for node, axes in wanted.items():
        kept = {axis: p for axis, (p, _) in axes.items() if (side, _label(reading, node), axis, p) in groups}
        if kept:
            plan[reading.blocks[node].leaf] = tuple(kept.get(axis, ()) for axis in range(len(reading.shape(node))))
    return plan


def _kinds(reading: Reading, wanted: Wanted) -> Kinds:
    """How many leaves there are of each label, shape and way of being cut."""
    return Counter(
        (_label(reading, node), reading.shape(node), tuple((axis, places) for axis, (places, _) in axes.items()))
        for node, axes in wanted.items()
    )


def _choices(kinds: Sequence[Kinds], groups: Set[Group]) -> list[frozenset[Group]]:
    """The choices of groups with which the ports' parts are most alike in size, those with most cuts first.

    A cut that only one program makes, as for rotary positions, makes them less alike.
    """
    every = sorted(groups)
    if len(every) > SEARCHED:
        return [_descended(kinds, frozenset(every))]
    some = [frozenset(one) for number in range(len(every), -1, -1) for one in combinations(every, number)]
    apart = [_apart(kinds, one) for one in some]
    return [one for one, far in zip(some, apart, strict=True) if far == min(apart)][:TRIED]


def _descended(kinds: Sequence[Kinds], groups: frozenset[Group]) -> frozenset[Group]:
    """All groups without those, one after the other, without which the ports are more alike."""
    while groups:
        fewer = min((groups - {one} for one in sorted(groups)), key=lambda some: _apart(kinds, some))
        if _apart(kinds, fewer) >= _apart(kinds, groups):
            break
        groups = fewer
    return groups


def _apart(kinds: Sequence[Kinds], groups: Set[Group]) -> int:
    """How many elements lie in parts of a size that the other port has not as many of."""
    sizes: list[Counter[tuple[Any, ...]]] = [Counter(), Counter()]
    for side, some in enumerate(kinds):
        for (label, shape, axes), count in some.items():
            cut = {axis: places for axis, places in axes if (side, label, axis, places) in groups}
            lengths = [[b - a for a, b in spans(cut.get(axis, ()), size)] for axis, size in enumerate(shape)]
            for part in product(*lengths):
                sizes[side][math.prod(part), label[1]] += count
    odd = (sizes[0] - sizes[1]) + (sizes[1] - sizes[0])
    return sum(label[0] * number for label, number in odd.items())


def _unplaced(readings: Sequence[Reading], plan: Sequence[Cutting]) -> int:
    """How many elements lie in parts that stand where the other port has none, or not as many."""
    one, two = (recut(reading, cutting).skeleton for reading, cutting in zip(readings, plan, strict=True))
    colours = settled((Side(one, {}), Side(two, {})), Palette())
    places = [Counter(colours[side][node] for node in each.alive) for side, each in enumerate((one, two))]
    return sum(
        each.labels[node][0]
        for side, each in enumerate((one, two))
        for node in each.alive
        if places[0][colours[side][node]] != places[1][colours[side][node]]
    )
