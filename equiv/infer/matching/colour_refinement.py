"""Colours of leaves by their place: two leaves of two programs have one colour if nothing around them differs.

Colour refinement (Weisfeiler and Leman, 1968) from both sides at once: forwards from the batch, backwards from the
outputs, then round after round from what is near.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from equiv.infer.dataflow.use_graph import Links, Skeleton

Colours = tuple[int, ...]
"""One number per node."""


@dataclass
class Palette:
    """Numbers for whatever has been seen, the same for both programs."""

    known: dict[Any, int] = field(default_factory=dict)

    def __call__(self, *key: Any) -> int:
        """The number of a key."""
        return self.known.setdefault(key, len(self.known))


@dataclass(frozen=True)
class Side:
    """One program with what is already known of its leaves.

    Attributes:
        skeleton: the program.
        anchors: node to the number of the pair that it belongs to.
    """

    skeleton: Skeleton
    anchors: Mapping[int, int]

    def start(self, palette: Palette) -> list[int]:
        """What each node is known to be, apart from its place."""
        return [
            palette("pair", self.anchors[node]) if node in self.anchors else palette("label", label)
            for node, label in enumerate(self.skeleton.labels)
        ]


def forwards(side: Side, palette: Palette) -> list[int]:
    """For every place a number for all that comes before it; a leaf that is known stands for itself."""
    return _along(side, palette, side.skeleton.order, side.skeleton.before)


def backwards(side: Side, palette: Palette) -> list[int]:
    """For every place a number for all that comes after it."""
    return _along(side, palette, side.skeleton.order[::-1], side.skeleton.after)


def _along(side: Side, palette: Palette, order: Iterable[int], links: Links) -> list[int]:
    start, owners = side.start(palette), side.skeleton.owners
    found = [0] * len(owners)
    for place in order:
        known = owners[place] in side.anchors
        near = () if known else tuple(sorted(found[other] for other in links[place]))
        found[place] = palette("along", start[owners[place]], near)
    return found


def by_node(side: Side, palette: Palette, *places: list[int]) -> Colours:
    """Nodes by the numbers of their uses."""
    start = side.start(palette)
    found: list[list[tuple[int, ...]]] = [[] for _ in start]
    for place, node in enumerate(side.skeleton.owners):
        found[node].append(tuple(numbers[place] for numbers in places))
    return tuple(palette("node", own, tuple(sorted(numbers))) for own, numbers in zip(start, found, strict=True))


def near(side: Side, palette: Palette) -> Colours:
    """Nodes by the known leaves right before and after them: what is unknown in between is left out."""
    skeleton = side.skeleton
    return _around(side, palette, skeleton.before, skeleton.after, skeleton.back, skeleton.forth)


def beside(side: Side, palette: Palette) -> Colours:
    """Nodes by the known leaves of the sum or product that they join: where they stand in the program's text."""
    return _around(side, palette, side.skeleton.beside)


def _around(side: Side, palette: Palette, *ways: Links) -> Colours:
    skeleton, anchors = side.skeleton, side.anchors
    start = side.start(palette)
    around: list[set[tuple[int, int]]] = [set() for _ in start]
    for way, links in enumerate(ways):
        for place, node in enumerate(skeleton.owners):
            around[node] |= {
                (way, start[owner])
                for other in links[place]
                if (owner := skeleton.owners[other]) in anchors or owner >= skeleton.blocks
            }
    return tuple(
        palette("near", own, len(ways), tuple(sorted(some))) if some else palette("alone", index, id(side))
        for index, (own, some) in enumerate(zip(start, around, strict=True))
    )


def settled(sides: tuple[Side, Side], palette: Palette) -> tuple[Colours, Colours]:
    """Both programs' nodes by all that is around them, refined until nothing more can be told apart."""
    places = [(forwards(side, palette), backwards(side, palette)) for side in sides]
    colours = [by_node(side, palette, *numbers) for side, numbers in zip(sides, places, strict=True)]
    number = 0
    for now in _rounds(sides, palette, colours):
        colours = now
        if (count := len({*colours[0], *colours[1]})) == number:
            break
        number = count
    return colours[0], colours[1]


def _rounds(sides: tuple[Side, Side], palette: Palette, colours: list[Colours]) -> Iterator[list[Colours]]:
    while True:
        yield colours
        colours = [_round(side.skeleton, palette, now) for side, now in zip(sides, colours, strict=True)]


def _round(skeleton: Skeleton, palette: Palette, colours: Colours) -> Colours:
    owners = skeleton.owners
    found: list[list[tuple[tuple[int, ...], ...]]] = [[] for _ in colours]
    every = (skeleton.before, skeleton.after, skeleton.back, skeleton.forth)
    for place, node in enumerate(owners):
        found[node].append(tuple(tuple(sorted(colours[owners[other]] for other in way[place])) for way in every))
    return tuple(palette("round", own, tuple(sorted(uses))) for own, uses in zip(colours, found, strict=True))
