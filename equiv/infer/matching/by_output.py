"""Decide element maps by outputs: with the right ones, both ports compute the same from the same values.

Only pairs of which several element maps are possible are tried, and only if the likeliest ones do not do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from equiv.core.leaves import NativeKey
from equiv.errors import EquivError
from equiv.infer.dataflow.local_hash import node_roles
from equiv.infer.dataflow.port_graph import PortGraph
from equiv.infer.dataflow.use_graph import Use
from equiv.infer.matching.axis_orders import AxisOrder, LeafSide, possible_orders
from equiv.infer.matching.by_gradient import (
    EQUAL_GRADIENTS,
    MAX_GRADIENT_ELEMENTS,
    NEAREST_MARGIN,
    draw_content,
)
from equiv.infer.matching.proposal import LeafPair
from equiv.infer.matching.relations import ElementMap

MAX_RUNS = 64
"""Number of runs of a port up to which leaves are tried one by one; twice as many, with those together."""

CommonUse = Callable[[tuple[PortGraph, PortGraph], int, int], tuple[Use | None, Use | None]]
"""A use of each of two nodes with the same label."""


@dataclass(frozen=True)
class DoubtfulPair:
    """A pair with several possible element maps.

    Attributes:
        number: its index.
        kind: equal for pairs that are decided in the same way, as those of several layers.
        orders: its element maps, the likeliest first.
        starts: where both parts begin.
    """

    number: int
    kind: Any
    orders: tuple[AxisOrder, ...]
    starts: tuple[int, int]

    def map(self, choice: int) -> ElementMap:
        """One of its element maps."""
        return self.orders[choice].element_map(self.starts)


def order_axes(
    graphs: Sequence[tuple[PortGraph, PortGraph]],
    pairs: list[LeafPair],
    batch: Mapping[str, np.ndarray],
    common_use: CommonUse,
) -> tuple[list[LeafPair], str]:
    """The pairs with the element maps under which both ports return the same, and a note where there are none.

    Args:
        graphs: both ports, walked with their leaves in parts, and as wholes.
        pairs: with the element maps that the order of use says.
        batch: entry to array.
        common_use: see `CommonUse`.
    """
    doubtful = _doubtful_pairs(graphs, pairs, common_use)
    ports = graphs[-1]
    size = sum(int(np.prod(struct.shape)) for struct in ports[0].port.leaves.values())
    if not doubtful or size > MAX_GRADIENT_ELEMENTS or not _covers_all(ports, pairs):
        return pairs, ""
    trial = OutputTrial(ports, pairs, batch)
    try:
        choices, equal = _find_choices(trial, doubtful)
    except EquivError:
        # The note on gradients says why a port cannot be run.
        return pairs, ""
    found = list(pairs)
    for one in doubtful:
        found[one.number] = replace(pairs[one.number], element_map=one.map(choices[one.kind]))
    if equal:
        return found, ""
    names = ", ".join(dict.fromkeys(pairs[one.number].left.path for one in doubtful))
    return found, f"the outputs differ under every order of axes that was tried for {names}"


def _doubtful_pairs(
    graphs: Sequence[tuple[PortGraph, PortGraph]], pairs: Sequence[LeafPair], common_use: CommonUse
) -> list[DoubtfulPair]:
    # Taken only where there is a doubt, as they take as long as a walk.
    roles = cache(lambda place: tuple(node_roles(graph.dataflow) for graph in graphs[place]))
    numbered = [tuple(map(_nodes_by_part, both)) for both in graphs]
    found = []
    for number, pair in enumerate(pairs):
        sides, where = None, (0, 0, 0)
        for place, both in enumerate(graphs):
            wanted = zip(numbered[place], (pair.left, pair.right), pair.bounds, strict=True)
            nodes = [nodes.get((key, some)) for nodes, key, some in wanted]
            if None in nodes:
                continue
            one, two = (node for node in nodes if node is not None)
            uses = common_use(both, one, two)
            sides = tuple(
                LeafSide(graph.shape(node), some, None if use is None else use.access, graph.axis_factors)
                for graph, node, some, use in zip(both, (one, two), pair.bounds, uses, strict=True)
            )
            where = place, one, two
            break
        if sides is None or "float" not in str(graphs[-1][0].port.leaves[pair.left].dtype):
            continue
        orders = possible_orders((sides[0], sides[1]), pair.element_map)
        if len(orders) > 1 or (orders and pair.element_map is None):
            place, one, two = where
            kind = roles(place)[0][one], roles(place)[1][two], len(orders), orders[0]
            found.append(DoubtfulPair(number, kind, orders, (sides[0].start, sides[1].start)))
    return found


def _nodes_by_part(graph: PortGraph) -> dict[tuple[NativeKey, Any], int]:
    return {(graph.key(node), block.bounds): node for node, block in enumerate(graph.blocks)}


def _covers_all(graphs: tuple[PortGraph, PortGraph], pairs: Sequence[LeafPair]) -> bool:
    """Whether every leaf that an output depends on has its values from a pair."""
    for side, graph in enumerate(graphs):
        held: dict[NativeKey, int] = {}
        for pair in pairs:
            key = (pair.left, pair.right)[side]
            held[key] = held.get(key, 0) + int(np.prod([stop - start for start, stop in pair.bounds[side]]))
        if any(held.get(graph.key(node), 0) != graph.blocks[node].size for node in graph.use_graph.live):
            return False
    return True


def _find_choices(trial: "OutputTrial", doubtful: Sequence[DoubtfulPair]) -> tuple[dict[Any, int], bool]:
    """The order of each kind of doubtful pairs, and whether the outputs are equal under them."""
    kinds = {one.kind: one for one in doubtful}
    choices = dict.fromkeys(kinds, 0)
    if trial.distance(doubtful, choices) < EQUAL_GRADIENTS:
        return choices, True
    equal: dict[Any, list[int]] = {}
    for kind, one in kinds.items():
        if trial.runs + len(one.orders) > MAX_RUNS:
            break
        # All other doubtful leaves hold values that are the same whatever their order: this one is alone.
        distances = [trial.distance(doubtful, {kind: choice}, alone=kind) for choice in range(len(one.orders))]
        choices[kind] = _choose_order(distances)
        equal[kind] = [at for at, far in enumerate(distances) if far < EQUAL_GRADIENTS] or [choices[kind]]
    # Of some leaves the order does not show while others hold such values: these are tried together.
    for way in product(*equal.values()):
        if trial.runs >= 2 * MAX_RUNS:
            break
        tried = choices | dict(zip(equal, way, strict=True))
        if trial.distance(doubtful, tried) < EQUAL_GRADIENTS:
            return tried, True
    return choices, False


def _choose_order(distances: Sequence[float]) -> int:
    """The first order with equal outputs; in ports that differ the nearest by a margin, or else the likeliest."""
    nearest = int(np.argmin(distances))
    equal = next((at for at, far in enumerate(distances) if far < EQUAL_GRADIENTS), None)
    if equal is not None:
        return equal
    return nearest if NEAREST_MARGIN * distances[nearest] < distances[0] else 0


@dataclass
class OutputTrial:
    """Runs of both ports with the same values in each pair of leaves.

    Attributes:
        graphs: both ports.
        pairs: the pairs.
        batch: entry to array.
        runs: how often one port was run.
    """

    graphs: tuple[PortGraph, PortGraph]
    pairs: Sequence[LeafPair]
    batch: Mapping[str, np.ndarray]
    runs: int = 0
    known: dict[Any, list[np.ndarray]] = field(default_factory=dict)

    def distance(self, doubtful: Sequence[DoubtfulPair], choices: Mapping[Any, int], alone: Any = None) -> float:
        """The largest difference of the outputs, relative to the largest output.

        Args:
            doubtful: pairs with several orders.
            choices: kind to the chosen order.
            alone: the only kind that holds different values in each order; None: all of them.
        """
        even = {one.number: one for one in doubtful if alone is not None and one.kind != alone}
        maps = {one.number: one.map(choices.get(one.kind, 0)) for one in doubtful}
        left = self._left_leaves(even)
        if alone not in self.known:
            self.known[alone] = self._run(0, left)
        ours, theirs = self.known[alone], self._run(1, self._right_leaves(left, maps))
        if [one.shape for one in ours] != [one.shape for one in theirs]:
            return np.inf
        scale = max((float(np.abs(one).max()) for one in ours if one.size), default=0.0)
        far = max((float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True) if a.size), default=0.0)
        return far / scale if scale and np.isfinite(far) else np.inf

    def _left_leaves(self, even: Mapping[int, DoubtfulPair]) -> dict[NativeKey, np.ndarray]:
        graph = self.graphs[0]
        arrays = {
            key: np.zeros(graph.port.leaves[key].shape, graph.port.leaves[key].dtype) for key in graph.keys.values()
        }
        labels = {graph.key(node): label for node, label in enumerate(graph.use_graph.labels[: len(graph.blocks)])}
        for number, pair in enumerate(self.pairs):
            whole = arrays[pair.left].reshape(pair.shapes[0])
            block = whole[(*(slice(*ends) for ends in pair.bounds[0]), ...)]  # a scalar has no axis
            drawn = draw_content(("pair", number), (block.size, *labels[pair.left][1:]))
            block[...] = (drawn - pair.shift).reshape(block.shape)
            if number in even:
                _make_even(arrays[pair.left], even[number])
        return arrays

    def _right_leaves(
        self, left: Mapping[NativeKey, np.ndarray], maps: Mapping[int, ElementMap]
    ) -> dict[NativeKey, np.ndarray]:
        leaves = self.graphs[1].port.leaves
        arrays = {key: np.zeros(leaves[key].shape, leaves[key].dtype) for key in self.graphs[1].keys.values()}
        for number, pair in enumerate(self.pairs):
            known = maps.get(number, pair.element_map)
            if known is not None:
                ours, theirs = _both_views(known, left[pair.left], arrays[pair.right])
                theirs[...] = ours + pair.shift
        return arrays

    def _run(self, side: int, leaves: Mapping[NativeKey, np.ndarray]) -> list[np.ndarray]:
        self.runs += 1
        graph = self.graphs[side]
        arrays = {place: leaves[key] for place, key in graph.keys.items()}
        return graph.outputs(arrays, self.batch)


def _both_views(known: ElementMap, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views of two contiguous leaves with corresponding elements at each index."""
    sizes = [size for size, _, _ in known.steps]
    one, two = (
        np.lib.stride_tricks.as_strided(
            array.reshape(-1)[start:], sizes, [step[1 + side] * array.itemsize for step in known.steps]
        )
        for side, (array, start) in enumerate(zip((left, right), known.starts, strict=True))
    )
    return one, two


def _make_even(array: np.ndarray, pair: DoubtfulPair) -> None:
    """Give a doubtful leaf values that are constant along all steps that its orders do not agree on."""
    first = pair.orders[0]
    sizes, strides, kept = [], [], []
    for name in ("contracted", "rest"):
        agreed = len({getattr(order, name) for order in pair.orders}) == 1
        for size, ours, _ in getattr(first, name):
            sizes.append(size)
            strides.append(ours * array.itemsize)
            kept.append(agreed)
    view = np.lib.stride_tricks.as_strided(array.reshape(-1)[pair.starts[0] :], sizes, strides)
    view[...] = view[tuple(slice(None) if one else slice(0, 1) for one in kept)].copy()
