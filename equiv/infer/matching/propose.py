"""From two ports to a proposal: trace, cut packed leaves, match, and list unpaired leaves."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf, isnan
from typing import Any

import numpy as np

from equiv.backends.base import Port, PortSpec
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.port_graph import LeafCuts, PortGraph, leaf_after_call, read_port
from equiv.infer.dataflow.strided_views import AccessPattern, access_pattern, whole_leaf_view
from equiv.infer.dataflow.use_graph import Use
from equiv.infer.matching.axis_orders import order_of_size
from equiv.infer.matching.by_gradient import GradientMatcher
from equiv.infer.matching.by_name import NameMatcher, OrderMatcher, find_name_conflicts
from equiv.infer.matching.by_output import order_axes
from equiv.infer.matching.colour_refinement import Palette, refine_colours
from equiv.infer.matching.match import Decision, Evidence, Matching, Tie, match_leaves, pair_by_shape, within_sizes
from equiv.infer.matching.proposal import Bounds, LeafPair, Proposal, UnpairedLeaf
from equiv.infer.matching.relations import element_map, is_part_of
from equiv.infer.matching.splits import find_cuts
from equiv.infer.matching.unread_parts import (
    both_unread,
    match_in_train_mode,
    pair_unread_parts,
    same_cuts,
    unread_parts,
)


def propose(ports: tuple[Port, Port], request: PortSpec, batch: Mapping[str, np.ndarray]) -> Proposal:
    """Infer which leaf of one port is which leaf of the other.

    Args:
        ports: built, abstractly.
        request: methods and batch, the same for both.
        batch: entry to array, for ties that only gradients decide.

    Raises:
        PortError: a port cannot be traced.
    """
    graphs = read_port(ports[0], request), read_port(ports[1], request)
    first, second = find_cuts(graphs)
    parts = graphs[0].cut(first), graphs[1].cut(second)
    by_name = NameMatcher(parts)
    by_gradient = GradientMatcher(parts, batch, by_name.best)
    by_size = GradientMatcher(parts, batch, by_name.best, order_of_size)
    # One port applies a layer before a lookup and the other one after it: places differ, and gradients do not.
    by_value = within_sizes(GradientMatcher(parts, batch, by_name.best, margin=inf))
    by_order = OrderMatcher(parts, by_name)
    said = (by_name, by_order, by_name.anywhere, by_order.anywhere)
    deciders = (by_gradient, by_size, pair_by_shape, by_value, *said)
    matching = match_leaves((parts[0].use_graph, parts[1].use_graph), deciders)
    pairs = _add_unread_parts(parts, (first, second), request, _make_pairs(parts, matching))
    pairs = _add_dead_pairs(graphs, request, pairs)
    order = {key: place for place, key in enumerate(_leaf_order(graphs[0]))}
    # In the order of use, so that the written table reads like the model.
    pairs = _merge_whole_leaves(
        graphs, sorted(pairs, key=lambda pair: (order.get(pair.left, len(order)), pair.bounds[0]))
    )
    pairs, undecided = order_axes((parts, graphs), pairs, batch, _common_use)
    named = [
        (
            by_name.words_of(0, pair.left, pair.bounds[0]),
            by_name.words_of(1, pair.right, pair.bounds[1]),
            _bounds_size(pair.bounds[0]),
        )
        for pair in pairs
    ]
    notes = [*filter(None, (by_gradient.reason, undecided)), *_output_notes(graphs)]
    # Names are compared after the matching, and change nothing in it.
    return Proposal(
        ports, tuple(pairs), tuple(_unpaired_leaves(pairs, graphs)), find_name_conflicts(named), tuple(notes)
    )


def _output_notes(graphs: tuple[PortGraph, PortGraph]) -> list[str]:
    """A note if the outputs of the ports differ in shape: leaves are also matched by their outputs."""
    one, two = ([tuple(aval.shape) for aval in graph.program.jaxpr.out_avals] for graph in graphs)
    if one == two:
        return []
    names = [graph.port.name for graph in graphs]
    return [
        f"{names[0]} returns outputs of shapes {one}, {names[1]} of shapes {two}; outputs are compared in this order"
    ]


def _leaf_order(graph: PortGraph) -> list[NativeKey]:
    """Live leaves in the order of their use in the program."""
    use_graph = graph.use_graph
    nodes = [use_graph.owners[place] for place in use_graph.order if use_graph.owners[place] < use_graph.blocks]
    return list(dict.fromkeys(graph.key(node) for node in nodes))


def _bounds_size(bounds: Bounds) -> int:
    return int(np.prod([end - start for start, end in bounds]))


def _make_pairs(graphs: tuple[PortGraph, PortGraph], matching: Matching) -> list[LeafPair]:
    groups: dict[int, int] = {}
    for number, group in enumerate(matching.interchangeable, 1):
        # When one of a group is paired, the rest is decided again: it belongs to the same group.
        first = next((groups[node] for node in group if node in groups), number)
        groups |= dict.fromkeys(group, first)
    found = []
    for one, two in matching.pairs.items():
        ours, theirs = _common_use(graphs, one, two)
        forms = _node_access(graphs[0], one, ours), _node_access(graphs[1], two, theirs)
        found.append(
            LeafPair(
                graphs[0].key(one),
                graphs[1].key(two),
                (graphs[0].shape(one), graphs[1].shape(two)),
                (graphs[0].blocks[one].bounds, graphs[1].blocks[two].bounds),
                element_map(*forms),
                _integer_shift(ours, theirs),
                matching.evidence[one],
                groups.get(one, 0),
                ours.operation if ours else "",
            )
        )
    return found


def _common_use(graphs: tuple[PortGraph, PortGraph], one: int, two: int) -> tuple[Use | None, Use | None]:
    """A use of each leaf with the same label; a leaf may be used several times."""
    ours, theirs = graphs[0].use_graph.uses[one], graphs[1].use_graph.uses[two]
    for use in ours:
        for other in theirs:
            if use.label == other.label and use.access is not None and other.access is not None:
                return use, other
    return (ours[0] if ours else None), (theirs[0] if theirs else None)


def _node_access(graph: PortGraph, node: int, use: Use | None) -> AccessPattern:
    """A node's access pattern; its memory order where the use is not a view."""
    if use is not None and use.access is not None and use.access.size == graph.blocks[node].size:
        return use.access
    return access_pattern(whole_leaf_view(graph.shape(node), graph.blocks[node].bounds))


def _integer_shift(ours: Use | None, theirs: Use | None) -> float:
    """An integer that only one program adds; any other number, such as an epsilon, is a difference of the functions."""
    difference = (ours.shift if ours else 0.0) - (theirs.shift if theirs else 0.0)
    return 0.0 if isnan(difference) or not difference.is_integer() else difference


def _merge_whole_leaves(graphs: tuple[PortGraph, PortGraph], pairs: list[LeafPair]) -> list[LeafPair]:
    """Merge the parts of two leaves into one pair if their element maps agree with that of the whole leaves."""
    groups: dict[tuple[NativeKey, NativeKey], list[LeafPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.left, pair.right), []).append(pair)
    found = []
    for (left, right), some in groups.items():
        one, two = (_first_node(graph, key) for graph, key in zip(graphs, (left, right), strict=True))
        shapes = graphs[0].shape(one), graphs[1].shape(two)
        full = sum(_bounds_size(pair.bounds[0]) for pair in some) == int(np.prod(shapes[0])) == int(np.prod(shapes[1]))
        known = element_map(
            *(_node_access(graph, node, use) for graph, node, use in _with_common_use(graphs, one, two))
        )
        parts = [pair.element_map for pair in some]
        # A leaf that both ports pack was cut only because its parts
        # might be in another order. If they are not, it is one leaf.
        same = full and known is not None and all(part is not None and is_part_of(known, part) for part in parts)
        if len(some) > 1 and same and len({pair.shift for pair in some}) == 1:
            bounds = tuple(tuple((0, size) for size in shape) for shape in shapes)
            some = [replace(some[0], shapes=shapes, bounds=(bounds[0], bounds[1]), element_map=known)]
        found += some
    return found


def _with_common_use(
    graphs: tuple[PortGraph, PortGraph], one: int, two: int
) -> list[tuple[PortGraph, int, Use | None]]:
    ours, theirs = _common_use(graphs, one, two)
    return [(graphs[0], one, ours), (graphs[1], two, theirs)]


def _first_node(graph: PortGraph, key: NativeKey) -> int:
    return next(node for node in range(len(graph.blocks)) if graph.key(node) == key)


def _add_unread_parts(
    parts: tuple[PortGraph, PortGraph], cuts: tuple[LeafCuts, LeafCuts], request: PortSpec, pairs: list[LeafPair]
) -> list[LeafPair]:
    """Add pairs of what eval mode does not read of leaves that it reads in part."""
    read = [{pair.left for pair in pairs}, {pair.right for pair in pairs}]
    if not any(key in read[side] for side, graph in enumerate(parts) for key, _ in unread_parts(graph, pairs, side)):
        return pairs
    if any(graph.port.has_modes for graph in parts):
        one, two = (
            same_cuts(graph, cuts[side], read_port(graph.port, request, train=True)) for side, graph in enumerate(parts)
        )
        trained = _make_pairs((one, two), match_in_train_mode((one, two), pairs))
        pairs = [*pairs, *both_unread(parts, pairs, trained)]
    return [*pairs, *pair_unread_parts(parts, pairs)]


def _add_dead_pairs(graphs: tuple[PortGraph, PortGraph], request: PortSpec, pairs: list[LeafPair]) -> list[LeafPair]:
    """Add pairs of leaves that only train mode or later calls depend on: counters, running averages."""
    # Without dead leaves on both sides there is nothing to pair, and both ports need not be traced again.
    if not (graphs[0].dead and graphs[1].dead):
        return pairs
    later = read_port(graphs[0].port, request, train=True), read_port(graphs[1].port, request, train=True)
    nodes = tuple({graph.key(node): node for node in range(len(graph.blocks))} for graph in later)
    # No leaf is cut here. Of the parts of a leaf one pair is enough, as these leaves are only neighbours to go by.
    known = {nodes[0][pair.left]: nodes[1][pair.right] for pair in pairs}
    by_name = NameMatcher(later)
    matching = match_leaves((later[0].use_graph, later[1].use_graph), (pair_by_shape, by_name, by_name.anywhere), known)
    matching.add(_pair_overwritten(later, matching))
    fresh = [
        pair for pair in _make_pairs(later, matching) if pair.left in graphs[0].dead and pair.right in graphs[1].dead
    ]
    return [*pairs, *fresh]


def _pair_overwritten(graphs: tuple[PortGraph, PortGraph], matching: Matching) -> Iterator[Decision]:
    """Pair leaves that a call writes but does not read: by the written value, by shape, and last by name."""
    colours = refine_colours(matching.anchored(), Palette())
    left: dict[int, tuple[object, object]] = {}
    right: dict[int, tuple[object, object]] = {}
    for side, (graph, found) in enumerate(zip(graphs, (left, right), strict=True)):
        first = graph.use_graph.blocks + len(graph.dataflow.inputs)
        ends = {name: first + number for number, name in enumerate(graph.program.outputs)}
        for node in range(len(graph.blocks)):
            # A leaf that is only written has no use that could be
            # coloured. The output that holds its new value has a colour.
            after = [end for name, end in ends.items() if name == leaf_after_call(name.program, graph.key(node))]
            if after and node not in graph.use_graph.live:
                found[node] = tuple(colours[side][end] for end in after), graph.use_graph.labels[node][:2]
    # What is written depends on all that the program computes, and may differ where one port has a bug.
    evidence: tuple[Evidence, Evidence] = ("position", "shape")
    for kind, known in enumerate(evidence):
        ties = _equal_kinds(left, right, kind)
        pairs = tuple((ours[0], theirs[0]) for ours, theirs in ties if len(ours) == len(theirs) == 1)
        yield Decision(pairs, known)
        for one, two in pairs:
            del left[one], right[two]
    by_name = NameMatcher(graphs)
    yield Decision(tuple(pair for tie in _equal_kinds(left, right, 1) for pair in by_name.best(tie)), "name")


def _equal_kinds(left: Mapping[int, Any], right: Mapping[int, Any], kind: int) -> list[Tie]:
    """Nodes of both sides whose values are equal at an index."""
    found: dict[object, tuple[list[int], list[int]]] = {}
    for side, some in enumerate((left, right)):
        for node, kinds in some.items():
            found.setdefault(kinds[kind], ([], []))[side].append(node)
    return [(tuple(ours), tuple(theirs)) for ours, theirs in found.values() if ours and theirs]


def _unpaired_leaves(pairs: list[LeafPair], graphs: tuple[PortGraph, PortGraph]) -> list[UnpairedLeaf]:
    found = []
    for side, graph in enumerate(graphs):
        paired = [{(pair.left, pair.right)[at] for pair in pairs} for at in (side, 1 - side)]
        for key in graph.keys.values():
            if key not in paired[0]:
                dead = key in graph.dead
                why = (
                    "no output depends on it in eval mode"
                    if dead
                    else _unpaired_reason(graph, graphs[1 - side], key, paired[1])
                )
                found.append(UnpairedLeaf(side, key, why, dead))
    return found


def _unpaired_reason(graph: PortGraph, other: PortGraph, key: NativeKey, paired: set[NativeKey]) -> str:
    """Why a live leaf has no pair."""
    who, size = other.port.name, _element_count(graph.port, key)
    same_size = [
        one for one in other.keys.values() if _element_count(other.port, one) == size and one not in other.dead
    ]
    free = [one for one in same_size if one not in paired]
    if free:
        shown = ", ".join(map(str, free[:3])) + (", ..." if len(free) > 3 else "")
        return f"position, gradient and name do not decide which leaf of {who} it is: {shown}"
    tied = [one for one in same_size if len(other.use_graph.uses[_first_node(other, one)]) > 1]
    if tied:
        return (
            f"{who} has no leaf of {size} elements left; it uses {tied[0]} several times, perhaps as a shared parameter"
        )
    return f"{who} has no leaf of {size} elements left"


def _element_count(port: Port, key: NativeKey) -> int:
    return int(np.prod(port.leaves[key].shape))
