"""Cut packed leaves into parts: those that one port packs and the other stores separately."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations, product
from typing import Any

from equiv.infer.dataflow.blocks import Cuts, part_spans
from equiv.infer.dataflow.port_graph import LeafCuts, PortGraph
from equiv.infer.matching.colour_refinement import AnchoredGraph, Palette, refine_colours

SLICED, LOOPED, GROUPED = 0, 1, 2
"""What cuts a leaf: slices; the iterations of a loop; the groups of a convolution, its kernel first, then the rest."""

WantedCut = tuple[int, Cuts, int]
"""An axis, the indices where a program cuts it, and what does so, such as `SLICED`."""

WantedCuts = Mapping[int, tuple[WantedCut, ...]]
"""Live leaf to its cuts. Of several of one axis the first that is chosen counts: the coarser ones follow."""

LeafKinds = Mapping[tuple[Any, ...], int]
"""Label, shape and cuts of leaves to how many there are."""

CutGroup = tuple[int, tuple[Any, ...], int, Cuts, int]
"""Side, size and dtype of leaves, an axis, its cuts, and what cuts it: either all or none of these leaves are cut."""

MAX_EXHAUSTIVE_GROUPS, MAX_TRIED_CHOICES = 12, 8
"""Largest number of groups for exhaustive search, and of equally good choices that are all tried."""

MAX_COARSENED_CUTS = 8
"""Largest number of cuts of one axis of which some are tried without the others."""


def find_cuts(graphs: tuple[PortGraph, PortGraph]) -> tuple[LeafCuts, LeafCuts]:
    """Find the cuts of both ports' leaves that give the same parts.

    A leaf is cut where its own program splits it, if the other port has no leaf of this size; and if both
    programs split leaves of one size, because the order of the parts may differ.
    """
    sizes = [Counter(_size_label(graph, node) for node in graph.use_graph.live) for graph in graphs]
    wanted = (_wanted_cuts(graphs[0], sizes[1]), _wanted_cuts(graphs[1], sizes[0]))
    odd = {label for label in {*sizes[0], *sizes[1]} if sizes[0][label] != sizes[1][label]}
    found = [_cut_groups(graph, side, wanted[side]) for side, graph in enumerate(graphs)]
    # Wherever each program splits them: a part may be elsewhere in the other port, or on another axis.
    split = [{group[1] for group in some if group[-1] == SLICED} for some in found]
    shared = split[0] & split[1]
    # Stacked leaves of two scans stay whole: their items are in the order of the iterations in both. So do kernels of
    # two convolutions in groups. A stack may have the size of single leaves of the other port: sizes alone hide it.
    stacks = [_count_stacks(graph, wanted[side]) for side, graph in enumerate(graphs)]
    unlike = {label for label in {*stacks[0], *stacks[1]} if stacks[0][label] != stacks[1][label]}
    groups = {
        group
        for some in found
        for group in some
        if group[1] in odd or group[1] in {SLICED: shared, LOOPED: unlike}.get(group[-1], ())
    }
    if not groups:
        return {}, {}
    kinds = [_count_kinds(graph, wanted[side]) for side, graph in enumerate(graphs)]
    choices = _best_choices(kinds, groups)
    plans = [tuple(_plan_cuts(r, side, wanted[side], some) for side, r in enumerate(graphs)) for some in choices]
    # Sizes alone cannot choose between these; places in the graph can, but need a walk for each choice. Of equally
    # good ones `min` keeps the first, which has most cuts: `_merge_whole_leaves` undoes those that were not needed.
    best = plans[0] if len(plans) == 1 else min(plans, key=lambda plan: _count_unplaced(graphs, plan))
    return best[0], best[1]


def _size_label(graph: PortGraph, node: int) -> tuple[Any, ...]:
    return graph.use_graph.labels[node][:2]


def _count_stacks(graph: PortGraph, wanted: WantedCuts) -> Counter[tuple[Any, ...]]:
    """How many leaves of a size and dtype a loop cuts in its iterations."""
    return Counter(
        _size_label(graph, node) for node, cuts in wanted.items() if any(what == LOOPED for _, _, what in cuts)
    )


def _wanted_cuts(graph: PortGraph, others: Mapping[tuple[Any, ...], int]) -> WantedCuts:
    """What a program cuts; `others`: how many leaves of each size and dtype the other port has."""
    found: dict[int, tuple[WantedCut, ...]] = {}
    for node in graph.use_graph.live:
        leaf, cuts = graph.blocks[node].leaf, list[WantedCut]()
        length = graph.dataflow.loop_lengths.get(leaf)
        for axis, size in enumerate(graph.shape(node)):
            if axis == 0 and length:
                cuts.append((axis, tuple(range(1, length)), LOOPED))
            elif places := graph.dataflow.wanted_cuts.get((leaf, axis)):
                label = _size_label(graph, node)
                cuts.append((axis, places, SLICED))
                cuts += [(axis, some, SLICED) for some in _coarser_cuts(places, size, label, others)]
            elif grouped := graph.dataflow.group_cuts.get((leaf, axis)):
                cuts.append((axis, grouped.places, GROUPED + grouped.distance))
        found[node] = tuple(cuts)
    return found


def _coarser_cuts(
    places: Cuts, size: int, label: tuple[Any, ...], others: Mapping[tuple[Any, ...], int]
) -> Iterator[Cuts]:
    """The most of several cuts that leave parts of the sizes of whole leaves of the other port."""
    # `concatenate([h, x, sin(x)]) @ kernel` cuts its rows for x and for sin(x), which
    # the other port may keep in one array: then it has one kernel for both, and one for h.
    whole, kind = label
    if others.get(label) or len(places) > MAX_COARSENED_CUTS:
        return
    for number in range(len(places) - 1, 0, -1):
        fits = [
            some
            for some in combinations(places, number)
            if all((whole // size * (stop - start), kind) in others for start, stop in part_spans(some, size))
        ]
        if fits:
            yield fits[0]
            return


def _cut_groups(graph: PortGraph, side: int, wanted: WantedCuts) -> set[CutGroup]:
    return {(side, _size_label(graph, node), *cut) for node, cuts in wanted.items() for cut in cuts}


def _plan_cuts(graph: PortGraph, side: int, wanted: WantedCuts, groups: Set[CutGroup]) -> dict[int, tuple[Cuts, ...]]:
    plan = {}
    for node, cuts in wanted.items():
        kept = _chosen_cuts(side, _size_label(graph, node), cuts, groups)
        if kept:
            plan[graph.blocks[node].leaf] = tuple(kept.get(axis, ()) for axis in range(len(graph.shape(node))))
    return plan


def _chosen_cuts(
    side: int, label: tuple[Any, ...], cuts: Sequence[WantedCut], groups: Set[CutGroup]
) -> dict[int, Cuts]:
    """Axis to the indices where it is cut."""
    # Backwards, so that the first of an axis stays: with a fine cut chosen, a coarser one changes nothing.
    return {axis: places for axis, places, what in reversed(cuts) if (side, label, axis, places, what) in groups}


def _count_kinds(graph: PortGraph, wanted: WantedCuts) -> LeafKinds:
    """How many leaves there are of each label, shape and way of being cut."""
    return Counter((_size_label(graph, node), graph.shape(node), cuts) for node, cuts in wanted.items())


def _best_choices(kinds: Sequence[LeafKinds], groups: Set[CutGroup]) -> list[frozenset[CutGroup]]:
    """The choices of groups that minimise the size mismatch of the ports' parts, those with most cuts first.

    A cut that only one program makes, as for rotary positions, increases the mismatch.
    """
    every = sorted(groups)
    # 2**12 choices take about a second; each further group doubles that.
    if len(every) > MAX_EXHAUSTIVE_GROUPS:
        return [_greedy_choice(kinds, frozenset(every))]
    some = [frozenset(one) for number in range(len(every), -1, -1) for one in combinations(every, number)]
    mismatches = [_size_mismatch(kinds, one) for one in some]
    return [one for one, size in zip(some, mismatches, strict=True) if size == min(mismatches)][:MAX_TRIED_CHOICES]


def _greedy_choice(kinds: Sequence[LeafKinds], groups: frozenset[CutGroup]) -> frozenset[CutGroup]:
    """Remove groups greedily while that decreases the size mismatch."""
    while groups:
        fewer = min((groups - {one} for one in sorted(groups)), key=lambda some: _size_mismatch(kinds, some))
        if _size_mismatch(kinds, fewer) >= _size_mismatch(kinds, groups):
            break
        groups = fewer
    return groups


def _size_mismatch(kinds: Sequence[LeafKinds], groups: Set[CutGroup]) -> int:
    """Number of elements in parts whose size occurs less often in the other port."""
    sizes: list[Counter[tuple[Any, ...]]] = [Counter(), Counter()]
    for side, some in enumerate(kinds):
        for (label, shape, cuts), count in some.items():
            cut = _chosen_cuts(side, label, cuts, groups)
            lengths = [[b - a for a, b in part_spans(cut.get(axis, ()), size)] for axis, size in enumerate(shape)]
            for part in product(*lengths):
                sizes[side][math.prod(part), label[1]] += count
    # A Counter's difference drops what is negative, so that both are needed.
    odd = (sizes[0] - sizes[1]) + (sizes[1] - sizes[0])
    return sum(label[0] * number for label, number in odd.items())


def _count_unplaced(graphs: Sequence[PortGraph], plan: Sequence[LeafCuts]) -> int:
    """Number of elements in parts whose colour occurs more or less often in the other port."""
    one, two = (graph.cut(cutting).use_graph for graph, cutting in zip(graphs, plan, strict=True))
    colours = refine_colours((AnchoredGraph(one, {}), AnchoredGraph(two, {})), Palette())
    places = [Counter(colours[side][node] for node in each.live) for side, each in enumerate((one, two))]
    return sum(
        each.labels[node][0]
        for side, each in enumerate((one, two))
        for node in each.live
        if places[0][colours[side][node]] != places[1][colours[side][node]]
    )
