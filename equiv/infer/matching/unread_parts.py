"""Parts of leaves that no output in eval mode reads, as the half of a head whose other half is used: where they belong.

A part of a packed leaf is mapped where something reads it. The rest has to be mapped too, or the leaf could not be put
together: by what train mode does with it, else in order, by the rule that the used part of its leaf follows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.port_graph import LeafCuts, PortGraph
from equiv.infer.dataflow.strided_views import Shape, access_pattern, row_major_strides, whole_leaf_view
from equiv.infer.matching.match import Matching, match_leaves, pair_by_shape
from equiv.infer.matching.proposal import Bounds, LeafPair
from equiv.infer.matching.relations import ElementMap, element_map

Part = tuple[NativeKey, Bounds]
"""A native leaf, and (start, stop) on every axis of it."""


@dataclass(frozen=True)
class UnreadPart:
    """A part of a leaf, or a whole one, on which no output depends.

    Attributes:
        key: the native leaf.
        shape: of the whole leaf.
        bounds: the part.
        kind: kind of its dtype.
    """

    key: NativeKey
    shape: Shape
    bounds: Bounds
    kind: str

    @property
    def sizes(self) -> Shape:
        """Its own shape."""
        return tuple(stop - start for start, stop in self.bounds)

    @property
    def whole(self) -> bool:
        """Whether it is a whole leaf."""
        return self.sizes == self.shape


def same_cuts(graph: PortGraph, cuts: LeafCuts, other: PortGraph) -> PortGraph:
    """Cut the leaves of another program of a port as those of the first are cut."""
    places = {key: place for place, key in other.keys.items()}
    return other.cut({places[graph.keys[place]]: some for place, some in cuts.items()})


def match_in_train_mode(later: tuple[PortGraph, PortGraph], pairs: Sequence[LeafPair]) -> Matching:
    """Match two programs in train mode, cut as those in eval mode are, whose pairs are known."""
    nodes = [{_part(graph, node): node for node in range(len(graph.blocks))} for graph in later]
    known = {}
    for pair in pairs:
        one, two = nodes[0].get(_side(pair, 0)), nodes[1].get(_side(pair, 1))
        if one is not None and two is not None:
            known[one] = two
    return match_leaves((later[0].use_graph, later[1].use_graph), (pair_by_shape,), known)


def both_unread(
    graphs: tuple[PortGraph, PortGraph], known: Sequence[LeafPair], pairs: Sequence[LeafPair]
) -> list[LeafPair]:
    """The pairs of parts that eval mode does not read, of which one at least is no whole leaf."""
    unread = [unread_parts(graph, known, side) for side, graph in enumerate(graphs)]

    def is_unread(pair: LeafPair) -> bool:
        sides = [parts.get(_side(pair, side)) for side, parts in enumerate(unread)]
        return None not in sides and not all(part and part.whole for part in sides)

    return list(filter(is_unread, pairs))


def _part(graph: PortGraph, node: int) -> Part:
    return graph.key(node), graph.blocks[node].bounds


def pair_unread_parts(graphs: tuple[PortGraph, PortGraph], pairs: Sequence[LeafPair]) -> list[LeafPair]:
    """Pair the unread parts of leaves that are used in part; what has no counterpart is left out.

    Args:
        graphs: both programs in eval mode, their leaves cut.
        pairs: those that are known.
    """
    found: list[LeafPair] = []
    for one, two in _counterparts(unread_parts(graphs[0], pairs, 0), unread_parts(graphs[1], pairs, 1), pairs):
        siblings = [pair for pair in pairs if one.key == pair.left or two.key == pair.right]
        # The counterpart of a leaf that is not used at all is sought in train mode, as a whole.
        if siblings and not (one.whole and two.whole):
            parts = {"shapes": (one.shape, two.shape), "bounds": (one.bounds, two.bounds)}
            fresh = replace(siblings[0], left=one.key, right=two.key, **parts)
            mapped = next(filter(None, (_map_by_rule(pair, one, two) for pair in siblings)), None)
            mapped = mapped or (_memory_order(one, two) if one.sizes == two.sizes else None)
            found.append(replace(fresh, element_map=mapped, evidence="order", interchange_group=0, operation=""))
    return found


def _side(pair: LeafPair, side: int) -> Part:
    return (pair.left, pair.right)[side], pair.bounds[side]


def unread_parts(graph: PortGraph, pairs: Sequence[LeafPair], side: int) -> dict[Part, UnreadPart]:
    """The parts and whole leaves of one port on which no output depends, without those in a pair."""
    live, taken = set(graph.use_graph.live), {_side(pair, side) for pair in pairs}
    return {
        part: UnreadPart(part[0], graph.shape(node), part[1], str(graph.use_graph.labels[node][1]))
        for node in range(len(graph.blocks))
        if node not in live and (part := _part(graph, node)) not in taken
    }


def _counterparts(
    left: dict[Part, UnreadPart], right: dict[Part, UnreadPart], pairs: Sequence[LeafPair]
) -> Iterator[tuple[UnreadPart, UnreadPart]]:
    """Yield which unread part is which: within leaves that belong together, then of one size."""
    rest = (left, right)

    def take(belongs: Callable[[int, UnreadPart], bool]) -> Iterator[tuple[UnreadPart, UnreadPart]]:
        ours, theirs = ([name for name, part in some.items() if belongs(side, part)] for side, some in enumerate(rest))
        kinds = [
            [(prod(some[name].sizes), some[name].kind) for name in names]
            for some, names in zip(rest, (ours, theirs), strict=True)
        ]
        # In order: nothing says more of what nothing reads. Another number or size on one side is no order.
        if kinds[0] == kinds[1]:
            yield from [(left.pop(one), right.pop(two)) for one, two in zip(ours, theirs, strict=True)]

    for keys in dict.fromkeys((pair.left, pair.right) for pair in pairs):
        yield from take(lambda side, part, keys=keys: part.key == keys[side])
    for kind in dict.fromkeys((prod(part.sizes), part.kind) for part in left.values()):
        yield from take(lambda _, part, kind=kind: (prod(part.sizes), part.kind) == kind)


def _memory_order(one: UnreadPart, two: UnreadPart) -> ElementMap | None:
    return element_map(*(access_pattern(whole_leaf_view(part.shape, part.bounds)) for part in (one, two)))


def _map_by_rule(sibling: LeafPair, one: UnreadPart, two: UnreadPart) -> ElementMap | None:
    """The element map of a pair of parts by the rule of another pair; None where that does not fit.

    Where a part is longer or shorter than its sibling on an axis, so is the slowest step along that axis.
    """
    if sibling.element_map is None:
        return None
    steps = [list(step) for step in sibling.element_map.steps]
    starts = []
    for side, part in enumerate((one, two)):
        if len(part.shape) != len(sibling.bounds[side]) or part.key != (sibling.left, sibling.right)[side]:
            return None
        strides = row_major_strides(part.shape)
        for stride, (begin, end), size in zip(strides, sibling.bounds[side], part.sizes, strict=True):
            if end - begin == size:
                continue
            ends = [
                at
                for at, step in enumerate(sibling.element_map.steps)
                if abs(step[1 + side]) * step[0] == stride * (end - begin)
            ]
            if not ends or size * stride % abs(steps[ends[0]][1 + side]):
                return None
            steps[ends[0]][0] = size * stride // abs(steps[ends[0]][1 + side])
        starts.append(sum(begin * stride for (begin, _), stride in zip(part.bounds, strides, strict=True)))
    if not prod(step[0] for step in steps) == prod(one.sizes) == prod(two.sizes):
        return None
    for side in (0, 1):
        starts[side] += sum((size - 1) * -step[side] for size, *step in steps if step[side] < 0)
    return ElementMap((starts[0], starts[1]), tuple((size, ours, theirs) for size, ours, theirs in steps))
