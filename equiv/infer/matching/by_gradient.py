"""Decide ties by gradients: where all tied leaves hold the same values, only equivalent leaves have equal gradients.

Every leaf is filled through its access pattern, so that two libraries' layouts of it hold the same values. One
gradient of a random projection of all outputs then distinguishes the leaves of a tie.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from equiv.errors import EquivError
from equiv.infer.dataflow.leaf_uses import ADD, CONTRACT
from equiv.infer.dataflow.local_hash import node_roles
from equiv.infer.dataflow.port_graph import PortGraph
from equiv.infer.dataflow.strided_views import AccessPattern
from equiv.infer.matching.match import Decision, Matching, Tie
from equiv.programs.probes import split_parts

EQUAL_GRADIENTS = float(np.sqrt(np.finfo("float32").eps))
"""Gradients are equal if they differ by less than half of float32's digits, relative to the largest of the tie."""

NEAREST_MARGIN = 10.0
"""Where none are equal, as in ports that differ elsewhere: how many times closer the nearest must be than the next."""

MAX_GRADIENT_ELEMENTS = 2**29
"""Number of elements of all leaves (2 GB of float32) above which no gradient is computed."""

DRAW_PERIOD = 65537
"""Values drawn for a leaf before they repeat: a prime, so that no two rows of a matrix are equal."""


NodeOrder = Callable[[PortGraph, int], AccessPattern | None]
"""The order of a node's elements; None: that of its memory."""


@dataclass
class GradientMatcher:
    """Decides ties by gradients.

    Attributes:
        graphs: both ports.
        batch: entry to array.
        best_by_name: returns the pairs of a tie with the most similar names, for interchangeable leaves.
        order: in which order the elements of a leaf are filled and compared.
        margin: see `NEAREST_MARGIN`; infinite: gradients have to be equal.
        reason: why no gradient could be taken; empty where one was, or none was needed.
    """

    graphs: tuple[PortGraph, PortGraph]
    batch: Mapping[str, np.ndarray]
    best_by_name: Callable[[Tie], Sequence[tuple[int, int]]]
    order: NodeOrder | None = None
    margin: float = NEAREST_MARGIN
    reason: str = ""
    tried: set[Tie] = field(default_factory=set)

    def __call__(self, matching: Matching, ties: list[Tie]) -> list[Decision]:
        """Decide one tie of every kind by its gradients, and the other ties of that kind in the same way."""
        # Gradients take most of the time of an inference: each tie is asked
        # once. A tie that more pairs have made smaller is another tie.
        ties = [tie for tie in ties if tie not in self.tried and self._all_floating(tie)]
        size = sum(int(np.prod(struct.shape)) for struct in self.graphs[0].port.leaves.values())
        if not ties or not self._has_own_order:
            return []
        if size > MAX_GRADIENT_ELEMENTS:
            self.reason = f"{size} elements are more than {MAX_GRADIENT_ELEMENTS}: no gradient was taken"
            return []
        groups: dict[Any, list[Tie]] = {}
        kinds = {tie: self._roles_of_tie(tie) for tie in ties}
        # Ties with distinct roles first: the others, such as kernels under their biases, may follow from them. A key
        # of None is a tie with two leaves of one role: its decision could not be carried over to other layers.
        distinct = {tie: kind for tie, kind in kinds.items() if kind is not None}
        for tie, kind in (distinct or kinds).items():
            groups.setdefault(tie if kind is None else kind, []).append(tie)
        chosen = [max(group, key=self._last_use) for group in groups.values()]
        self.tried.update(chosen)
        try:
            gradients = [self._gradients(matching, side, chosen) for side in (0, 1)]
        except EquivError as error:
            self.reason = f"no gradient could be taken: {error}"
            return []
        found: list[Decision] = []
        for tie, group in zip(chosen, groups.values(), strict=True):
            decision = _decide_by_distance(tie, gradients[0], gradients[1], self.margin)
            found += [] if decision is None else [self._transfer(tie, decision, other) for other in group]
        certain = [decision for decision in found if not decision.interchangeable]
        if certain or not found:
            return certain
        # Of interchangeable leaves only one pair is chosen: further pairs may follow from it by
        # position. What does not follow is asked again, as the leaves of this pair now hold values of their own.
        self.tried.difference_update(chosen)
        return [self._choose_pair(found[0])]

    def _choose_pair(self, decision: Decision) -> Decision:
        """A pair of interchangeable leaves: the one with the most similar names, if there is any."""
        best = self.best_by_name((decision.interchangeable, decision.partners))[:1]
        return replace(decision, pairs=tuple(best)) if best else decision

    @cached_property
    def roles(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The role of every node in each program."""
        return node_roles(self.graphs[0].dataflow), node_roles(self.graphs[1].dataflow)

    @cached_property
    def _has_own_order(self) -> bool:
        """Whether its order is that of use, or differs from it: the same gradients need not be taken twice."""
        return self.order is None or any(
            self.order(graph, node) not in (None, order_of_use(graph, node))
            for graph in self.graphs
            for node in graph.use_graph.live
        )

    def _all_floating(self, tie: Tie) -> bool:
        return all(self.graphs[0].use_graph.labels[node][1] in ("float", "complex") for node in tie[0])

    def _roles_of_tie(self, tie: Tie) -> Any:
        """Key of ties that are decided in the same way: the roles of their leaves, if distinct; else None."""
        found = tuple(tuple(sorted(self.roles[side][node] for node in tie[side])) for side in (0, 1))
        return found if all(len(set(some)) == len(some) for some in found) else None

    def _last_use(self, tie: Tie) -> int:
        """Position of the last use: the closer to the outputs, the less there is to differentiate."""
        use_graph = self.graphs[0].use_graph
        return max(use_graph.order.index(place) for place, node in enumerate(use_graph.owners) if node in tie[0])

    def _transfer(self, tie: Tie, decision: Decision, other: Tie) -> Decision:
        """Transfer a decision to a tie whose leaves have the same roles."""
        if other == tie:
            return decision
        to = [{self.roles[side][node]: node for node in other[side]} for side in (0, 1)]
        pairs = tuple((to[0][self.roles[0][one]], to[1][self.roles[1][two]]) for one, two in decision.pairs)
        return replace(
            decision,
            pairs=pairs,
            interchangeable=tuple(to[0][self.roles[0][one]] for one in decision.interchangeable),
            partners=tuple(to[1][self.roles[1][two]] for two in decision.partners),
        )

    def _gradients(self, matching: Matching, side: int, ties: Sequence[Tie]) -> dict[int, np.ndarray]:
        """Tied node to its gradient, in the order of its access pattern."""
        graph = self.graphs[side]
        arrays = fill_leaves(graph, node_contents(matching, side), self.order or order_of_use)
        nodes = [node for tie in ties for node in tie[side]]
        places = sorted({graph.blocks[node].leaf for node in nodes})
        found = graph.gradients(arrays, places, self.batch)
        blocks = {
            node: node_view(graph, node, found[graph.blocks[node].leaf], self.order or order_of_use) for node in nodes
        }
        return {node: _real_numbers(array.reshape(-1)) for node, array in blocks.items()}


def _real_numbers(array: np.ndarray) -> np.ndarray:
    """Float64 numbers: of complex ones the real parts, and then the imaginary ones."""
    return np.concatenate([part.astype("float64") for part in split_parts(array)])


def node_contents(matching: Matching, side: int) -> dict[int, object]:
    """Key of each node's values: its pair; without one, its label."""
    use_graph = matching.use_graphs[side]
    # Unpaired leaves of one label hold equal values: then their gradients
    # differ by what the program does with them and not by what they hold.
    anchors = matching.anchored()[side].anchors
    return {
        node: ("pair", anchors[node]) if node in anchors else use_graph.labels[node] for node in range(use_graph.blocks)
    }


def fill_leaves(graph: PortGraph, content: Mapping[int, object], order: NodeOrder) -> dict[int, np.ndarray]:
    """Program input index to a filled leaf; nodes with equal content keys hold equal values, each in its own layout."""
    structs = {place: graph.port.leaves[key] for place, key in graph.keys.items()}
    arrays = {place: np.zeros(struct.shape, struct.dtype) for place, struct in structs.items()}
    for node, what in content.items():
        uses = graph.use_graph.uses[node]
        # What the program adds is taken off, so that both ports compute with the same
        # number. Fractions, such as an epsilon, stay: there the functions differ.
        shift = next((use.shift for use in uses if use.shift and float(use.shift).is_integer()), 0.0)
        into = node_view(graph, node, arrays[graph.blocks[node].leaf], order)
        into[...] = (draw_content(what, graph.use_graph.labels[node]) - shift).reshape(into.shape)
    return arrays


def order_of_use(graph: PortGraph, node: int) -> AccessPattern | None:
    """A node's access pattern; None where no use is a view of all its elements."""
    found = next((use.access for use in graph.use_graph.uses[node] if use.access is not None), None)
    return None if found is None or found.size != graph.blocks[node].size else found


def node_view(graph: PortGraph, node: int, array: np.ndarray, order: NodeOrder) -> np.ndarray:
    """A view of a node's elements in an array of its leaf, in some order."""
    found = order(graph, node)
    # Without a view, or with one that sees only some of the elements, memory order is the best guess.
    if found is None:
        return array.reshape(graph.shape(node))[(*(slice(*ends) for ends in graph.blocks[node].bounds), ...)]
    return as_accessed(array, found)


def as_accessed(array: np.ndarray, form: AccessPattern) -> np.ndarray:
    """A view of a contiguous array in the order of an access pattern, with one axis per digit."""
    # A view, as the array is contiguous: what is assigned to the result fills
    # the leaf. A flipped axis starts at its last element and steps back.
    flat = array.reshape(-1)
    sizes, steps = [digit.size for digit in form.digits], [digit.stride * flat.itemsize for digit in form.digits]
    return np.lib.stride_tricks.as_strided(flat[form.start :], sizes, steps)


def draw_content(content: object, label: tuple[Any, ...]) -> np.ndarray:
    """Values of a leaf with this size, kind of dtype and these kinds of use, the same for equal content."""
    size, kind, *ways = label
    if kind != "float":
        return np.full(size, 1.0, "float32")
    # Not hash(): Python salts it, and a run could not be repeated.
    rng = np.random.default_rng(zlib.crc32(repr(content).encode()))
    drawn = np.resize(rng.standard_normal(min(size, DRAW_PERIOD), "float32").clip(-2.5, 2.5), size)
    if CONTRACT in ways:
        # For a square kernel this is one over the root of its inputs,
        # which keeps activations near 1 through many layers.
        return drawn * size**-0.25
    # Clipped at 2.5 and therefore between 0.5 and 1.5: a running variance must not be negative.
    return 0.2 * drawn if ADD in ways else 1 + 0.2 * drawn


def _decide_by_distance(
    tie: Tie, left: Mapping[int, np.ndarray], right: Mapping[int, np.ndarray], margin: float
) -> Decision | None:
    """Pair the nearest gradients if they are equal, or mutually nearest by the margin."""
    every = [left[node] for node in tie[0]] + [right[node] for node in tie[1]]
    scale = max(float(np.linalg.norm(gradient)) for gradient in every)
    if not scale or not np.isfinite(scale):
        return None
    # Leaves of one port with equal gradients are interchangeable among themselves and with no other leaf.
    ours, theirs = (_equal_groups(nodes, side, scale) for nodes, side in zip(tie, (left, right), strict=True))
    distances = np.array([[np.linalg.norm(left[one[0]] - right[two[0]]) / scale for two in theirs] for one in ours])
    found = []
    for one, row in enumerate(distances):
        two = int(row.argmin())
        # Against row and column: the two have to be nearest to each other.
        rest = min([*np.delete(row, two), *np.delete(distances[:, two], one)], default=np.inf)
        equal = row[two] < EQUAL_GRADIENTS <= rest or row[two] < rest / margin
        if equal and len(ours[one]) == len(theirs[two]):
            found.append((ours[one], theirs[two]))
    if pairs := tuple((one[0], two[0]) for one, two in found if len(one) == 1):
        return Decision(pairs, "gradient")
    if not found:
        return None
    # In the order of the leaves, so that the parts of one leaf keep theirs; the rest follows.
    one, two = found[0]
    return Decision(((one[0], two[0]),), "interchangeable", one, two)


def _equal_groups(nodes: Sequence[int], gradients: Mapping[int, np.ndarray], scale: float) -> list[tuple[int, ...]]:
    """Group the nodes of one port by equal gradients."""
    found: list[tuple[int, ...]] = []
    for node in nodes:
        for place, group in enumerate(found):
            if np.linalg.norm(gradients[node] - gradients[group[0]]) / scale < EQUAL_GRADIENTS:
                found[place] = (*group, node)
                break
        else:
            found.append((node,))
    return found
