"""A program as its leaves alone: which use of a leaf comes right before which. What happens in between is left out.

Two ports that compute the same in another way (another GELU, softmax or variance) have the same skeleton.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from equiv.infer.dataflow.leaf_uses import Uses, bits
from equiv.infer.dataflow.strided_views import Form
from equiv.infer.dataflow.walk import Flow

Links = tuple[tuple[int, ...], ...]
"""For every use some others."""


@dataclass(frozen=True)
class Use:
    """How a leaf is used in one place.

    Attributes:
        label: how it is taken in, see `equiv.infer.dataflow.leaf_uses`.
        form: how it is viewed; None where it is computed with first.
        shift: the number that the program's text adds to it.
        operation: the primitive that takes it in.
    """

    label: str
    form: Form | None
    shift: float
    operation: str


@dataclass(frozen=True)
class Skeleton:
    """Uses of leaves, entries and outputs, and their order.

    Attributes:
        labels: for every node what can be compared across ports: size, kind of dtype and ways of use; or its name.
            Nodes are blocks first, then batch entries, then outputs.
        blocks: how many of the nodes are blocks.
        uses: of each node, by place.
        owners: for every place the node that is used there.
        before: places right before each.
        after: the same, the other way.
        back: places before each by way of a loop's carry.
        forth: the same, the other way.
        beside: places in a sum or product when each joins it.
        order: places such that each comes after all of `before`.
    """

    labels: tuple[tuple[Any, ...], ...]
    blocks: int
    uses: tuple[tuple[Use, ...], ...]
    owners: tuple[int, ...]
    before: Links
    after: Links
    back: Links
    forth: Links
    beside: Links
    order: tuple[int, ...]

    @property
    def alive(self) -> tuple[int, ...]:
        """The blocks on which an output depends."""
        return tuple(node for node in range(self.blocks) if self.uses[node])


def skeleton(flow: Flow, kinds: Mapping[int, str], ends: Sequence[tuple[object, ...]]) -> Skeleton:
    """The leaves of a program and their order.

    Args:
        flow: its uses.
        kinds: kind of dtype of every leaf, by its place among the program's inputs: two kinds are never one.
        ends: what is known of every output.
    """
    uses = flow.uses
    reached = _reaching(uses, flow.ends)
    first = len(flow.blocks) + len(flow.inputs)
    before, order = _reduced([*uses.incoming, *flow.ends])
    back = [*uses.back, *(0 for _ in flow.ends)]
    owners = (*uses.nodes, *(first + end for end in range(len(flow.ends))))
    found: list[list[Use]] = [[] for _ in range(first + len(flow.ends))]
    for place, node in enumerate(uses.nodes):
        if reached >> place & 1:
            found[node].append(Use(uses.labels[place], uses.forms[place], uses.shifts[place], uses.operations[place]))
    blocks = [
        (block.size, kinds[block.leaf], *sorted({use.label for use in found[node]}))
        for node, block in enumerate(flow.blocks)
    ]
    named = [*(("input", name) for name in flow.inputs), *(("output", *end) for end in ends)]
    into = tuple(tuple(bits(came)) for came in before)
    through = tuple(tuple(bits(came)) for came in back)
    return Skeleton(
        (*blocks, *named),
        len(blocks),
        tuple(map(tuple, found)),
        owners,
        into,
        _reversed(into),
        through,
        _reversed(through),
        tuple(tuple(bits(came)) for came in (*uses.beside, *(0 for _ in flow.ends))),
        order,
    )


def _reaching(uses: Uses, ends: Sequence[int]) -> int:
    """The uses on which an output depends, as bits."""
    found = left = 0
    for came in ends:
        left |= came
    while left:
        found |= left
        further = 0
        for place in bits(left):
            further |= uses.incoming[place] | uses.back[place]
        left = further & ~found
    return found


def _reduced(incoming: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """What comes before each place, without what comes before that anyway; and the places in order."""
    above = [0] * len(incoming)
    before = list(incoming)
    order = tuple(TopologicalSorter({place: list(bits(came)) for place, came in enumerate(incoming)}).static_order())
    for place in order:
        further = 0
        for other in bits(incoming[place]):
            further |= above[other]
        before[place] &= ~further
        above[place] = further | incoming[place]
    return before, order


def _reversed(links: Links) -> Links:
    out: list[list[int]] = [[] for _ in links]
    for place, came in enumerate(links):
        for other in came:
            out[other].append(place)
    return tuple(map(tuple, out))
