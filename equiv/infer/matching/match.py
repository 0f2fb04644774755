"""Leaves of two programs put together: by their place, then by what they do, then by shape, and last by name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from equiv.infer.dataflow.use_graph import Skeleton
from equiv.infer.matching.colour_refinement import (
    Colours,
    Palette,
    Side,
    backwards,
    beside,
    by_node,
    forwards,
    near,
    settled,
)

Evidence = Literal["position", "function", "shape", "name", "order"]
"""How a pair is known: nothing else stands in that place; nothing else has that gradient; nothing else has that size;
nothing else has such a name; of leaves that are interchangeable it is one of several ways to order them."""


Tie = tuple[tuple[int, ...], tuple[int, ...]]
"""Nodes of the left and right program that stand in one place."""


@dataclass(frozen=True)
class Decision:
    """What was found out about a tie.

    Attributes:
        pairs: left and right nodes that belong together.
        evidence: how that is known.
        alike: left nodes that could as well change places.
    """

    pairs: tuple[tuple[int, int], ...]
    evidence: Evidence
    alike: tuple[int, ...] = ()


@dataclass
class Matching:
    """Pairs found so far.

    Attributes:
        sides: both programs.
        pairs: left node to right node.
        evidence: left node to how its pair is known.
        alike: groups of left nodes that could as well change places.
    """

    sides: tuple[Skeleton, Skeleton]
    pairs: dict[int, int] = field(default_factory=dict)
    evidence: dict[int, Evidence] = field(default_factory=dict)
    alike: list[tuple[int, ...]] = field(default_factory=list)

    def anchored(self) -> tuple[Side, Side]:
        """Both programs, each node of a pair with the pair's number."""
        numbered = list(enumerate(self.pairs.items()))
        left = {one: number for number, (one, _) in numbered}
        right = {two: number for number, (_, two) in numbered}
        return Side(self.sides[0], left), Side(self.sides[1], right)

    def left_over(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Living blocks of either side without a pair."""
        taken = (set(self.pairs), set(self.pairs.values()))
        left, right = (
            tuple(n for n in side.alive if n not in done) for side, done in zip(self.sides, taken, strict=True)
        )
        return left, right

    def add(self, decisions: Iterable[Decision]) -> bool:
        """Take pairs over; whether there were any."""
        found = False
        for decision in decisions:
            for one, two in decision.pairs:
                self.pairs[one], self.evidence[one], found = two, decision.evidence, True
            if decision.alike:
                self.alike.append(decision.alike)
        return found


Decide = Callable[[Matching, list[Tie]], list[Decision]]
"""Finds out about ties; says nothing of those it cannot tell."""


def match(
    sides: tuple[Skeleton, Skeleton], deciders: Iterable[Decide], known: Mapping[int, int] | None = None
) -> Matching:
    """Pair the living blocks of two programs.

    Args:
        sides: both programs.
        deciders: what decides ties, the strongest first; each is asked again after every step.
        known: pairs to begin with.
    """
    matching, deciders = Matching(sides), list(deciders)
    matching.add([Decision(tuple((known or {}).items()), "position")])
    while True:
        while _by_position(matching):
            pass
        ties = _ties(matching)
        if not any(matching.add(decide(matching, ties)) for decide in deciders):
            return matching


def _schemes(sides: tuple[Side, Side]) -> Iterable[tuple[Colours, Colours]]:
    """Colours of both sides, the most telling first; the later ones still work where the programs differ elsewhere."""
    palette = Palette()
    yield settled(sides, palette)
    for along in (forwards, backwards):
        left, right = (by_node(side, palette, along(side, palette)) for side in sides)
        yield left, right
    for around in (near, beside):
        yield around(sides[0], palette), around(sides[1], palette)


def _by_position(matching: Matching) -> bool:
    for colours in _schemes(matching.anchored()):
        pairs = [(left[0], right[0]) for left, right in classes(matching, colours) if len(left) == len(right) == 1]
        if pairs:
            return matching.add([Decision(tuple(pairs), "position")])
    return False


def _ties(matching: Matching) -> list[Tie]:
    """Leaves that share a place, equally many on both sides, by the most telling colours that have any."""
    for colours in _schemes(matching.anchored()):
        if ties := [tie for tie in classes(matching, colours) if len(tie[0]) == len(tie[1])]:
            return ties
    return []


def classes(matching: Matching, colours: tuple[Mapping[int, int] | Colours, Mapping[int, int] | Colours]) -> list[Tie]:
    """Blocks without a pair by colour, where both sides have any."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for side, nodes in enumerate(matching.left_over()):
        for node in nodes:
            found.setdefault(colours[side][node], ([], []))[side].append(node)
    return [(tuple(left), tuple(right)) for left, right in found.values() if left and right]


def by_shape(matching: Matching, _: list[Tie]) -> list[Decision]:
    """The only leaves left of a size, dtype and way of use; or else of a size and dtype."""
    for number in (None, 2):
        labels = [{node: hash(side.labels[node][:number]) for node in side.alive} for side in matching.sides]
        found = classes(matching, (labels[0], labels[1]))
        if pairs := tuple((left[0], right[0]) for left, right in found if len(left) == len(right) == 1):
            return [Decision(pairs, "shape")]
    return []
