"""A program as a graph of the uses of its leaves: which use directly precedes which. Other operations are left out.

Two ports that differ only in leafless operations (another GELU, softmax or variance) have the same graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from equiv.infer.dataflow.leaf_uses import LeafUses, bit_positions
from equiv.infer.dataflow.strided_views import AccessPattern
from equiv.infer.dataflow.walk import Dataflow

Links = tuple[tuple[int, ...], ...]
"""For every use, indices of other uses."""


@dataclass(frozen=True)
class Use:
    """One use of a leaf.

    Attributes:
        label: how the operation uses it, see `equiv.infer.dataflow.leaf_uses`.
        access: its access pattern; None where it is computed with first.
        shift: the literal that the program adds to it.
        operation: the primitive that uses it.
    """

    label: str
    access: AccessPattern | None
    shift: float
    operation: str


@dataclass(frozen=True)
class UseGraph:
    """Uses of leaves and batch entries, the outputs, and their order.

    Attributes:
        labels: what can be compared across ports: size, dtype kind and use labels; name of an input or output.
            Nodes are blocks first, then batch entries, then outputs.
        blocks: how many of the nodes are blocks.
        uses: of each node.
        owners: the node of each use.
        predecessors: uses directly before each use.
        successors: uses directly after each.
        carry_predecessors: uses before each through a loop's carry.
        carry_successors: uses after each through a loop's carry.
        group_operands: earlier operands of the sum or product that each joins.
        order: topological order of the uses.
    """

    labels: tuple[tuple[Any, ...], ...]
    blocks: int
    uses: tuple[tuple[Use, ...], ...]
    owners: tuple[int, ...]
    predecessors: Links
    successors: Links
    carry_predecessors: Links
    carry_successors: Links
    group_operands: Links
    order: tuple[int, ...]

    @property
    def live(self) -> tuple[int, ...]:
        """Blocks on which an output depends."""
        return tuple(node for node in range(self.blocks) if self.uses[node])


def build_use_graph(flow: Dataflow, kinds: Mapping[int, str], ends: Sequence[tuple[object, ...]]) -> UseGraph:
    """Build the use graph of a program.

    Args:
        flow: its uses.
        kinds: dtype kind of every leaf, by its index among the program's inputs; leaves of different kinds never match.
        ends: label of every output.
    """
    uses = flow.uses
    reached = _uses_reaching_outputs(uses, flow.output_uses)
    # Outputs join as uses that nothing follows. Links through a carry stay apart, as they would make cycles.
    first = len(flow.blocks) + len(flow.inputs)
    # Without the reduction each layer of a residual network is linked to all before it: quadratic,
    # and one difference in the first layer would change the neighbours of every other.
    before, order = _transitive_reduction([*uses.predecessors, *flow.output_uses])
    back = [*uses.carry_predecessors, *(0 for _ in flow.output_uses)]
    owners = (*uses.nodes, *(first + end for end in range(len(flow.output_uses))))
    found: list[list[Use]] = [[] for _ in range(first + len(flow.output_uses))]
    for place, node in enumerate(uses.nodes):
        if reached >> place & 1:
            found[node].append(
                Use(uses.labels[place], uses.accesses[place], uses.shifts[place], uses.operations[place])
            )
    blocks = [
        # A set: how often is style, as a port may compute twice what the other keeps.
        (block.size, kinds[block.leaf], *sorted({use.label for use in found[node]}))
        for node, block in enumerate(flow.blocks)
    ]
    named = [*(("input", name) for name in flow.inputs), *(("output", *end) for end in ends)]
    into = tuple(tuple(bit_positions(came)) for came in before)
    through = tuple(tuple(bit_positions(came)) for came in back)
    return UseGraph(
        (*blocks, *named),
        len(blocks),
        tuple(map(tuple, found)),
        owners,
        into,
        _reverse_links(into),
        through,
        _reverse_links(through),
        tuple(tuple(bit_positions(came)) for came in (*uses.group_operands, *(0 for _ in flow.output_uses))),
        order,
    )


def _uses_reaching_outputs(uses: LeafUses, ends: Sequence[int]) -> int:
    """Uses on which an output depends, as a bit set."""
    found = left = 0
    for came in ends:
        left |= came
    while left:
        found |= left
        further = 0
        for place in bit_positions(left):
            further |= uses.predecessors[place] | uses.carry_predecessors[place]
        left = further & ~found
    return found


def _transitive_reduction(incoming: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """Transitive reduction of the predecessors, and a topological order."""
    above = [0] * len(incoming)
    before = list(incoming)
    order = tuple(
        TopologicalSorter({place: list(bit_positions(came)) for place, came in enumerate(incoming)}).static_order()
    )
    for place in order:
        further = 0
        for other in bit_positions(incoming[place]):
            further |= above[other]
        before[place] &= ~further
        above[place] = further | incoming[place]
    return before, order


def _reverse_links(links: Links) -> Links:
    out: list[list[int]] = [[] for _ in links]
    for place, came in enumerate(links):
        for other in came:
            out[other].append(place)
    return tuple(map(tuple, out))
