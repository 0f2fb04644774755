"""Colour leaves by position: leaves of two programs get the same colour if their surroundings are equal.

Colour refinement (Weisfeiler and Leman, 1968) from both sides at once: forwards from the batch, backwards from the
outputs, then in rounds from the neighbours.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from equiv.infer.dataflow.use_graph import Links, UseGraph

Colours = tuple[int, ...]
"""One number per node."""


@dataclass
class Palette:
    """Numbers for hashable keys, shared by both programs."""

    known: dict[Any, int] = field(default_factory=dict)

    def __call__(self, *key: Any) -> int:
        """The number of a key."""
        # Numbers and no hashes: equal colours have equal keys, without collisions.
        return self.known.setdefault(key, len(self.known))


@dataclass(frozen=True)
class AnchoredGraph:
    """One program and the pairs that its leaves already belong to.

    Attributes:
        use_graph: the program.
        anchors: node to the number of the pair that it belongs to.
    """

    use_graph: UseGraph
    anchors: Mapping[int, int]

    def start(self, palette: Palette) -> list[int]:
        """Initial colour of each node, regardless of its position."""
        return [
            palette("pair", self.anchors[node]) if node in self.anchors else palette("label", label)
            for node, label in enumerate(self.use_graph.labels)
        ]


def colour_forwards(side: AnchoredGraph, palette: Palette) -> list[int]:
    """Colour every use by all that precedes it, back to the nearest paired leaves."""
    return _propagate(side, palette, side.use_graph.order, side.use_graph.predecessors)


def colour_backwards(side: AnchoredGraph, palette: Palette) -> list[int]:
    """Colour every use by all that follows it, up to the nearest paired leaves."""
    return _propagate(side, palette, side.use_graph.order[::-1], side.use_graph.successors)


def _propagate(side: AnchoredGraph, palette: Palette, order: Iterable[int], links: Links) -> list[int]:
    start, owners = side.start(palette), side.use_graph.owners
    found = [0] * len(owners)
    for place in order:
        known = owners[place] in side.anchors
        # A pair stands for all that is before it: a difference there does not spread beyond the nearest pair.
        near = () if known else tuple(sorted(found[other] for other in links[place]))
        found[place] = palette("along", start[owners[place]], near)
    return found


def colour_nodes(side: AnchoredGraph, palette: Palette, *places: list[int]) -> Colours:
    """Colour nodes by the colours of their uses."""
    start = side.start(palette)
    found: list[list[tuple[int, ...]]] = [[] for _ in start]
    for place, node in enumerate(side.use_graph.owners):
        found[node].append(tuple(numbers[place] for numbers in places))
    return tuple(palette("node", own, tuple(sorted(numbers))) for own, numbers in zip(start, found, strict=True))


def colour_by_known_neighbours(side: AnchoredGraph, palette: Palette) -> Colours:
    """Colour nodes by the paired leaves directly before and after them; unpaired neighbours are ignored."""
    use_graph = side.use_graph
    return _colour_by_known(
        side,
        palette,
        use_graph.predecessors,
        use_graph.successors,
        use_graph.carry_predecessors,
        use_graph.carry_successors,
    )


def colour_by_known_operands(side: AnchoredGraph, palette: Palette) -> Colours:
    """Colour nodes by the paired leaves in the same sum or product."""
    return _colour_by_known(side, palette, side.use_graph.group_operands)


def _colour_by_known(side: AnchoredGraph, palette: Palette, *ways: Links) -> Colours:
    use_graph, anchors = side.use_graph, side.anchors
    start = side.start(palette)
    around: list[set[tuple[int, int]]] = [set() for _ in start]
    for way, links in enumerate(ways):
        for place, node in enumerate(use_graph.owners):
            # A set of the known ones only, as these colourings are for ports that differ: a leaf that one
            # port lacks must not change its neighbours. Batch entries and outputs are known from the start.
            around[node] |= {
                (way, start[owner])
                for other in links[place]
                if (owner := use_graph.owners[other]) in anchors or owner >= use_graph.blocks
            }
    return tuple(
        # Without a known neighbour nothing is known: a colour that no other node has.
        # The number of ways keeps the two colourings apart in the one palette.
        palette("near", own, len(ways), tuple(sorted(some))) if some else palette("alone", index, id(side))
        for index, (own, some) in enumerate(zip(start, around, strict=True))
    )


def refine_colours(sides: tuple[AnchoredGraph, AnchoredGraph], palette: Palette) -> tuple[Colours, Colours]:
    """Refine the colours of both programs' nodes until no round distinguishes more of them."""
    places = [(colour_forwards(side, palette), colour_backwards(side, palette)) for side in sides]
    colours = [colour_nodes(side, palette, *numbers) for side, numbers in zip(sides, places, strict=True)]
    number = 0
    for now in _refinement_rounds(sides, palette, colours):
        colours = now
        # A round only splits colours, as each key holds the old one. So an equal count is an equal partition.
        if (count := len({*colours[0], *colours[1]})) == number:
            break
        number = count
    return colours[0], colours[1]


def _refinement_rounds(
    sides: tuple[AnchoredGraph, AnchoredGraph], palette: Palette, colours: list[Colours]
) -> Iterator[list[Colours]]:
    while True:
        yield colours
        colours = [_refine_once(side.use_graph, palette, now) for side, now in zip(sides, colours, strict=True)]


def _refine_once(use_graph: UseGraph, palette: Palette, colours: Colours) -> Colours:
    owners = use_graph.owners
    found: list[list[tuple[tuple[int, ...], ...]]] = [[] for _ in colours]
    every = (use_graph.predecessors, use_graph.successors, use_graph.carry_predecessors, use_graph.carry_successors)
    for place, node in enumerate(owners):
        found[node].append(tuple(tuple(sorted(colours[owners[other]] for other in way[place])) for way in every))
    return tuple(palette("round", own, tuple(sorted(uses))) for own, uses in zip(colours, found, strict=True))
