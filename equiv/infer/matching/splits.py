"""Cut packed leaves into parts: those that one port packs and the other stores separately."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations, product
from typing import Any

from equiv.infer.dataflow.blocks import AxisCuts, Cuts, part_sizes, part_spans
from equiv.infer.dataflow.port_graph import LeafCuts, PortGraph
from equiv.infer.matching.colour_refinement import AnchoredGraph, Palette, refine_colours

NESTED, RECURRING, SLICED, LOOPED, GROUPED = -2, -1, 0, 1, 2
"""What cuts a leaf: slices of such parts; slices of the columns of each head; slices; the iterations of a loop; the
groups of a convolution, its kernel first, then the rest."""

WantedCuts = Mapping[int, Mapping[int, Sequence[tuple[AxisCuts, int]]]]
"""Live leaf to axis to where its program cuts it, and what does so, such as `SLICED`."""

LeafKinds = Mapping[tuple[Any, ...], int]
"""Label, shape and cuts of leaves to how many there are."""

CutGroup = tuple[int, tuple[Any, ...], int, AxisCuts, int]
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
        _size_label(graph, node)
        for node, axes in wanted.items()
        if any(way == LOOPED for ways in axes.values() for _, way in ways)
    )


def _wanted_cuts(graph: PortGraph, others: Mapping[tuple[Any, ...], int]) -> WantedCuts:
    """What a program cuts; `others`: how many leaves of each size and dtype the other port has."""
    found: dict[int, dict[int, Sequence[tuple[AxisCuts, int]]]] = {}
    for node in graph.use_graph.live:
        leaf, axes = graph.blocks[node].leaf, dict[int, Sequence[tuple[AxisCuts, int]]]()
        for axis, size in enumerate(graph.shape(node)):
            if places := graph.dataflow.wanted_cuts.get((leaf, axis)):
                coarser = _coarser_cuts(places, size, _size_label(graph, node), others)
                axes[axis] = [(AxisCuts(some), SLICED) for some in (places, *coarser)]
            elif grouped := graph.dataflow.group_cuts.get((leaf, axis)):
                axes[axis] = [(AxisCuts(grouped.places), GROUPED + grouped.distance)]
            elif recurring := graph.dataflow.recurring_cuts.get((leaf, axis)):
                axes[axis] = _recurring_cuts(recurring)
        if length := graph.dataflow.loop_lengths.get(leaf):
            axes[0] = [(AxisCuts(tuple(range(1, length))), LOOPED)]
        found[node] = axes
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


def _recurring_cuts(known: Mapping[tuple[int, int], Cuts]) -> list[tuple[AxisCuts, int]]:
    """The cuts of the longest period: of a whole period, then those of parts of it, as of halves for rotary positions.

    Args:
        known: period and the length of what is cut to the indices.
    """
    longest = max(period for period, _ in known)
    lengths = sorted((length for period, length in known if period == longest), reverse=True)
    return [
        (AxisCuts(known[longest, length], longest), NESTED if place else RECURRING)
        for place, length in enumerate(lengths)
    ]


def _cut_groups(graph: PortGraph, side: int, wanted: WantedCuts) -> set[CutGroup]:
    return {
        (side, _size_label(graph, node), axis, cuts, what)
        for node, axes in wanted.items()
        for axis, ways in axes.items()
        for cuts, what in ways
    }


def _plan_cuts(
    graph: PortGraph, side: int, wanted: WantedCuts, groups: Set[CutGroup]
) -> dict[int, tuple[AxisCuts, ...]]:
    plan = {}
    for node, axes in wanted.items():
        label = _size_label(graph, node)
        kept = {
            axis: _union([cuts for cuts, what in ways if (side, label, axis, cuts, what) in groups])
            for axis, ways in axes.items()
        }
        if any(cuts.places for cuts in kept.values()):
            plan[graph.blocks[node].leaf] = tuple(kept.get(axis, AxisCuts()) for axis in range(len(graph.shape(node))))
    return plan


def _union(some: Sequence[AxisCuts]) -> AxisCuts:
    """Cuts of one period together."""
    return (
        AxisCuts(tuple(sorted({place for one in some for place in one.places})), some[0].period) if some else AxisCuts()
    )


def _count_kinds(graph: PortGraph, wanted: WantedCuts) -> LeafKinds:
    """How many leaves there are of each label, shape and way of being cut."""
    return Counter(
        (_size_label(graph, node), graph.shape(node), tuple((axis, tuple(ways)) for axis, ways in axes.items()))
        for node, axes in wanted.items()
    )


def _best_choices(kinds: Sequence[LeafKinds], groups: Set[CutGroup]) -> list[frozenset[CutGroup]]:
    """The choices of groups that minimise the size mismatch of the ports' parts, those with most cuts first.

    A cut that only one program makes, as for rotary positions, increases the mismatch.
    """
    every = sorted(groups)
    # 2**12 choices take about a second; each further group doubles that.
    if len(every) > MAX_EXHAUSTIVE_GROUPS:
        # One at a time never removes the halves of heads that both programs cut.
        ways = [_greedy_choice(kinds, frozenset(some)) for some in ([g for g in every if g[-1] != NESTED], every)]
        return [min(ways, key=lambda some: _size_mismatch(kinds, some))]
    some = [frozenset(one) for number in range(len(every), -1, -1) for one in combinations(every, number)]
    mismatches = [_size_mismatch(kinds, one) for one in some]
    best = [one for one, size in zip(some, mismatches, strict=True) if size == min(mismatches)]
    # Nothing puts parts of each head together again, so that as few leaves as possible are cut so.
    fewest = min(map(_count_recurring, best))
    return [one for one in best if _count_recurring(one) == fewest][:MAX_TRIED_CHOICES]


def _count_recurring(groups: Set[CutGroup]) -> int:
    return sum(what < SLICED for *_, what in groups)


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
        for (label, shape, axes), count in some.items():
            cut = {
                axis: _union([cuts for cuts, what in ways if (side, label, axis, cuts, what) in groups])
                for axis, ways in axes
            }
            whole = AxisCuts()
            lengths = [
                part_sizes(cut.get(axis, whole).places, size, cut.get(axis, whole).period)
                for axis, size in enumerate(shape)
            ]
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
