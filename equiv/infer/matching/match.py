"""Match the leaves of two programs: by position, then by gradient, by shape, and last by name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from equiv.infer.dataflow.use_graph import UseGraph
from equiv.infer.matching.colour_refinement import (
    AnchoredGraph,
    Colours,
    Palette,
    colour_backwards,
    colour_by_known_neighbours,
    colour_by_known_operands,
    colour_forwards,
    colour_nodes,
    refine_colours,
)

Evidence = Literal["position", "gradient", "shape", "name", "interchangeable", "order", "sequence"]
"""How a pair was found: no other leaf has this position in the program; this gradient; this size and dtype;
a name this similar; it is one of several equivalent pairings of interchangeable leaves; nothing reads it, and it is
the next part of a leaf whose other parts are known; or it is the next part of a leaf, and nothing else says which."""

Tie = tuple[tuple[int, ...], tuple[int, ...]]
"""Nodes of the left and right program that have the same position."""


@dataclass(frozen=True)
class Decision:
    """Pairs decided for a tie.

    Attributes:
        pairs: corresponding left and right nodes.
        evidence: how they were found.
        interchangeable: left nodes that are interchangeable.
        partners: the right nodes that they are paired with, in any order.
    """

    pairs: tuple[tuple[int, int], ...]
    evidence: Evidence
    interchangeable: tuple[int, ...] = ()
    partners: tuple[int, ...] = ()


@dataclass
class Matching:
    """Pairs found so far.

    Attributes:
        use_graphs: both programs.
        pairs: left node to right node.
        evidence: left node to the evidence for its pair.
        interchangeable: groups of left nodes that are interchangeable.
    """

    use_graphs: tuple[UseGraph, UseGraph]
    pairs: dict[int, int] = field(default_factory=dict)
    evidence: dict[int, Evidence] = field(default_factory=dict)
    interchangeable: list[tuple[int, ...]] = field(default_factory=list)

    def anchored(self) -> tuple[AnchoredGraph, AnchoredGraph]:
        """Both programs, with each paired node anchored to its pair's number."""
        numbered = list(enumerate(self.pairs.items()))
        left = {one: number for number, (one, _) in numbered}
        right = {two: number for number, (_, two) in numbered}
        return AnchoredGraph(self.use_graphs[0], left), AnchoredGraph(self.use_graphs[1], right)

    def unpaired(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Live blocks of each side without a pair."""
        taken = (set(self.pairs), set(self.pairs.values()))
        left, right = (
            tuple(n for n in side.live if n not in done) for side, done in zip(self.use_graphs, taken, strict=True)
        )
        return left, right

    def add(self, decisions: Iterable[Decision]) -> bool:
        """Add the decided pairs; return whether there were any."""
        found = False
        for decision in decisions:
            for one, two in decision.pairs:
                self.pairs[one], self.evidence[one], found = two, decision.evidence, True
            if decision.interchangeable:
                self.interchangeable.append(decision.interchangeable)
        return found


TieBreaker = Callable[[Matching, list[Tie]], list[Decision]]
"""Decides some of the ties; returns nothing for the others."""


def match_leaves(
    use_graphs: tuple[UseGraph, UseGraph], deciders: Iterable[TieBreaker], known: Mapping[int, int] | None = None
) -> Matching:
    """Pair the live blocks of two programs.

    Args:
        use_graphs: both programs.
        deciders: tie-breakers, the strongest evidence first; all are called again after every decision.
        known: pairs to begin with.
    """
    matching, deciders = Matching(use_graphs), list(deciders)
    matching.add([Decision(tuple((known or {}).items()), "position")])
    while True:
        while _pair_by_position(matching):
            pass
        ties = _find_ties(matching)
        # After every decision it starts again from position: what follows from a weak pair is then
        # known by the strongest evidence that there is, and the fewest leaves are left to names.
        if not any(matching.add(decide(matching, ties)) for decide in deciders):
            return matching


def _colourings(sides: tuple[AnchoredGraph, AnchoredGraph]) -> Iterable[tuple[Colours, Colours]]:
    """Colourings of both sides, the most specific first; the later ones tolerate programs that differ."""
    palette = Palette()
    yield refine_colours(sides, palette)
    for along in (colour_forwards, colour_backwards):
        left, right = (colour_nodes(side, palette, along(side, palette)) for side in sides)
        yield left, right
    for around in (colour_by_known_neighbours, colour_by_known_operands):
        yield around(sides[0], palette), around(sides[1], palette)


def _pair_by_position(matching: Matching) -> bool:
    for colours in _colourings(matching.anchored()):
        pairs = [
            (left[0], right[0]) for left, right in group_by_colour(matching, colours) if len(left) == len(right) == 1
        ]
        # Lazily: a later colouring is computed only where the more specific ones find nothing.
        if pairs:
            return matching.add([Decision(tuple(pairs), "position")])
    return False


def _find_ties(matching: Matching) -> list[Tie]:
    """Leaves that share a colour, equally many on both sides, in the most specific colouring that has any."""
    for colours in _colourings(matching.anchored()):
        # With more leaves on one side than on the other, one of them has no counterpart, and nothing says which.
        if ties := [tie for tie in group_by_colour(matching, colours) if len(tie[0]) == len(tie[1])]:
            return ties
    return []


def group_by_colour(
    matching: Matching, colours: tuple[Mapping[int, int] | Colours, Mapping[int, int] | Colours]
) -> list[Tie]:
    """Group unpaired blocks by colour; colours on one side only are dropped."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for side, nodes in enumerate(matching.unpaired()):
        for node in nodes:
            found.setdefault(colours[side][node], ([], []))[side].append(node)
    return [(tuple(left), tuple(right)) for left, right in found.values() if left and right]


def within_sizes(decide: TieBreaker) -> TieBreaker:
    """A tie-breaker of all unpaired leaves of one size, dtype and kinds of use, wherever they are in the program."""

    def decide_sizes(matching: Matching, _: list[Tie]) -> list[Decision]:
        labels = [{node: hash(side.labels[node]) for node in side.live} for side in matching.use_graphs]
        found = group_by_colour(matching, (labels[0], labels[1]))
        return decide(matching, [tie for tie in found if len(tie[0]) == len(tie[1])])

    return decide_sizes


def pair_by_shape(matching: Matching, _: list[Tie]) -> list[Decision]:
    """Pair the only unpaired leaves of a size, dtype and kinds of use; or else of a size and dtype."""
    for number in (None, 2):
        labels = [{node: hash(side.labels[node][:number]) for node in side.live} for side in matching.use_graphs]
        found = group_by_colour(matching, (labels[0], labels[1]))
        if pairs := tuple((left[0], right[0]) for left, right in found if len(left) == len(right) == 1):
            return [Decision(pairs, "shape")]
    return []
