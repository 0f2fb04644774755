"""Evidence from names: break remaining ties, and find pairs that contradict the names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.port_graph import PortGraph
from equiv.infer.matching.match import Decision, Matching, Tie, group_by_colour

WORD_SYNONYMS = {
    "w": "kernel",
    "b": "bias",
    "offset": "bias",
    "embeddings": "embedding",
    "average": "",
    "weight": "kernel",
    "q": "query",
    "k": "key",
    "v": "value",
}
"""Words of one library, or their usual abbreviations, and their synonyms in another."""

IGNORED_WORDS = {"", "ema", "params", "state", "batch", "stats", "module"}
"""Words that do not identify a leaf."""


PACKED_WORDS = {"qkv": "query key value", "kv": "key value", "qk": "query key", "kqv": "key query value"}
"""Words for a leaf that packs several, in this order."""

PART_WORDS = frozenset(("query", "key", "value", "gate", "up"))
"""Words that, side by side in the name of a leaf, name its parts: `query_key_value`, `gate_up`."""


Words = frozenset[str]


def name_words(key: NativeKey, part: tuple[int, int] = (0, 1)) -> Words:
    """The words and numbers of a leaf's path, in lower case; a repeated word is counted.

    Args:
        key: the leaf.
        part: which part of it, and how many parts it has: the second of three of `qkv` is the key.
    """
    every: list[str] = []
    for match in re.finditer(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", key.path):
        word = WORD_SYNONYMS.get(match[0].lower(), match[0].lower())
        every += PACKED_WORDS.get(word, word).split() if part[1] > 1 else [word]
    found: dict[str, int] = {}
    for word in _words_of_part(every, *part):
        if word not in IGNORED_WORDS:
            found[word] = found.get(word, 0) + 1
    return frozenset(f"{word}#{number}" for word, count in found.items() for number in range(count))


def _words_of_part(words: list[str], part: int, count: int) -> list[str]:
    """The words without those of the other parts, where neighbouring words name as many parts as there are."""
    named = {place for place, word in enumerate(words) if word in PART_WORDS}
    run = sorted(named)[-count:]
    neighbours = len(run) == count > 1 and run == list(range(run[0], run[0] + count))
    if not neighbours or run[0] - 1 in named:
        return words
    return [word for place, word in enumerate(words) if place not in run or place == run[part]]


def _node_words(graph: PortGraph) -> dict[int, Words]:
    """The words of every node, those of a part of a leaf where its name says them."""
    parts: dict[NativeKey, list[int]] = {}
    for node in range(len(graph.blocks)):
        parts.setdefault(graph.key(node), []).append(node)
    found: dict[int, Words] = {}
    for key, nodes in parts.items():
        sizes = {graph.blocks[node].size for node in nodes}
        for part, node in enumerate(nodes):
            # Parts of other sizes may be halves of one of these.
            found[node] = name_words(key, (part, len(nodes)) if len(sizes) == 1 else (0, 1))
    return found


class NameMatcher:
    """Pairs leaves by names, where no other evidence decides."""

    def __init__(self, graphs: tuple[PortGraph, PortGraph]) -> None:
        self.graphs = graphs
        self.words = tuple(map(_node_words, graphs))
        self.parts = tuple(
            {(graph.key(node), graph.blocks[node].bounds): some for node, some in words.items()}
            for graph, words in zip(graphs, self.words, strict=True)
        )

    def words_of(self, side: int, key: NativeKey, bounds: tuple[tuple[int, int], ...]) -> Words:
        """The words of a leaf of one side, or of a part of it where its name says them."""
        return self.parts[side].get((key, bounds)) or name_words(key)

    def __call__(self, matching: Matching, ties: list[Tie]) -> list[Decision]:
        """Pair the best matching names within ties."""
        pairs = tuple(pair for tie in ties for pair in self.best(tie))
        return [Decision(pairs, "name")] if pairs else []

    def anywhere(self, matching: Matching, _: list[Tie]) -> list[Decision]:
        """Pair the best matching names among the unpaired leaves of one size: the programs differ where they are."""
        sizes = tuple({node: hash(side.labels[node][:2]) for node in side.live} for side in matching.use_graphs)
        return self(matching, group_by_colour(matching, (sizes[0], sizes[1])))

    def best(self, tie: Tie) -> list[tuple[int, int]]:
        """The pairs of a tie that are mutually most similar, by the Jaccard index of their words."""
        near = {(one, two): self._near(one, two) for one in tie[0] for two in tie[1]}
        found = []
        for (one, two), score in near.items():
            rest = [near[one, other] for other in tie[1] if other != two]
            rest += [near[other, two] for other in tie[0] if other != one]
            # Strictly: two equally good names decide nothing, nor does a pair without a common word.
            if score > max(rest, default=0.0):
                found.append((one, two))
        return found

    def _near(self, one: int, two: int) -> float:
        ours, theirs = self.words[0][one], self.words[1][two]
        return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


class OrderMatcher:
    """Pairs the parts of a leaf in their order, where no other evidence decides: a port with a bug is mapped, too."""

    def __init__(self, graphs: tuple[PortGraph, PortGraph], by_name: NameMatcher) -> None:
        self.graphs, self.by_name = graphs, by_name

    def __call__(self, matching: Matching, ties: list[Tie]) -> list[Decision]:
        """Pair the parts of one leaf that are in one tie with those of another, or with whole leaves, in order.

        The order of parts is that of the memory, the order of whole leaves that in which the program uses them first.
        """
        pairs: list[tuple[int, int]] = []
        for tie in ties:
            keys = [[graph.key(node) for node in nodes] for graph, nodes in zip(self.graphs, tie, strict=True)]
            one_leaf = [len(set(some)) == 1 for some in keys]
            whole = [len(set(some)) == len(some) for some in keys]
            if len(tie[0]) == len(tie[1]) > 1 and any(one_leaf) and all(map(max, one_leaf, whole)):
                pairs += zip(*(self._in_order(side, tie[side], one_leaf[side]) for side in (0, 1)), strict=True)
        return [Decision(tuple(pairs), "sequence")] if pairs else []

    def _in_order(self, side: int, nodes: Sequence[int], parts: bool) -> list[int]:
        graph = self.graphs[side]
        return sorted(nodes, key=(lambda node: graph.blocks[node].bounds) if parts else _first_uses(graph).__getitem__)

    def anywhere(self, matching: Matching, _: list[Tie]) -> list[Decision]:
        """Pair the unpaired parts of leaves that have as many of the same sizes, with leaves paired by name."""
        kinds: dict[object, tuple[dict[NativeKey, list[int]], dict[NativeKey, list[int]]]] = {}
        for side, (graph, nodes) in enumerate(zip(self.graphs, matching.unpaired(), strict=True)):
            parts: dict[NativeKey, list[int]] = {}
            for node in nodes:
                parts.setdefault(graph.key(node), []).append(node)
            for key, some in parts.items():
                kind = tuple(matching.use_graphs[side].labels[node][:2] for node in some)
                if len(some) > 1:
                    kinds.setdefault(kind, ({}, {}))[side][key] = some
        pairs: list[tuple[int, int]] = []
        for left, right in kinds.values():
            first = tuple(some[0] for some in left.values()), tuple(some[0] for some in right.values())
            chosen = [(first[0][0], first[1][0])] if len(left) == len(right) == 1 else self.by_name.best(first)
            for one, two in chosen:
                pairs += zip(left[self.graphs[0].key(one)], right[self.graphs[1].key(two)], strict=True)
        pairs = pairs or self._parts_and_leaves(matching)
        return [Decision(tuple(pairs), "sequence")] if pairs else []

    def _parts_and_leaves(self, matching: Matching) -> list[tuple[int, int]]:
        """Pair the parts of one leaf with as many whole leaves of their size, in the order in which these are used."""
        pairs: list[tuple[int, int]] = []
        unpaired = matching.unpaired()
        for side in (0, 1):
            graph, other = self.graphs[side], self.graphs[1 - side]
            parts, whole = _nodes_by_leaf(graph, unpaired[side]), _nodes_by_leaf(other, unpaired[1 - side])
            packed = [some for some in parts.values() if len(some) > 1]
            single = [some[0] for some in whole.values() if len(some) == 1]
            for size in {graph.use_graph.labels[node][:2] for some in packed for node in some}:
                mine = [[one for one in some if graph.use_graph.labels[one][:2] == size] for some in packed]
                theirs = [node for node in single if other.use_graph.labels[node][:2] == size]
                mine = [some for some in mine if some]
                if len(mine) == 1 and len(mine[0]) == len(theirs):
                    theirs.sort(key=_first_uses(other).__getitem__)
                    found = zip(mine[0], theirs, strict=True)
                    pairs += found if side == 0 else ((two, one) for one, two in found)
        return pairs


def _nodes_by_leaf(graph: PortGraph, nodes: Iterable[int]) -> dict[NativeKey, list[int]]:
    found: dict[NativeKey, list[int]] = {}
    for node in nodes:
        found.setdefault(graph.key(node), []).append(node)
    return found


def _first_uses(graph: PortGraph) -> dict[int, int]:
    """Node to the place of its first use in the program."""
    found: dict[int, int] = {}
    for place, use in enumerate(graph.use_graph.order):
        found.setdefault(graph.use_graph.owners[use], place)
    return found


def find_name_conflicts(pairs: Sequence[tuple[Words, Words, object]]) -> tuple[tuple[int, ...], ...]:
    """Find pairs whose names suggest another pairing: two that are crossed, or some of the same names in turn.

    Args:
        pairs: words of the left leaf and of the right one, and their kind (size); only pairs of one kind are compared.
    """
    return (*_find_crossed_pairs(pairs), *_find_turned_pairs(pairs))


def _find_turned_pairs(pairs: Sequence[tuple[Words, Words, object]]) -> Iterator[tuple[int, ...]]:
    """Yield three or more pairs that have the same names on both sides, each that of the next: 0 is 1, 1 is 2, 2 is 0.

    Layers that one port counts from 0 and the other from 1 are none: their names are not the same.
    """
    left = {(ours, kind): number for number, (ours, _, kind) in enumerate(pairs)}
    seen: set[int] = set()
    for start in range(len(pairs)):
        turn: list[int] = []
        at: int | None = start
        while at is not None and at not in seen:
            seen.add(at)
            turn.append(at)
            at = left.get((pairs[at][1], pairs[at][2]))
        if at == start and len(turn) > 2:
            yield tuple(turn)


def _find_crossed_pairs(pairs: Sequence[tuple[Words, Words, object]]) -> tuple[tuple[int, int], ...]:
    """Find two pairs each whose names suggest the opposite pairing: distinguishing words are swapped."""
    every = [(left, right) for left, right, _ in pairs]
    kinds = [kind for _, _, kind in pairs]
    known = [frozenset(word for pair in every for word in pair[side]) for side in (0, 1)]
    groups: dict[object, list[int]] = {}
    for number, (left, right) in enumerate(every):
        # A word of one side that also occurs on the other side, but not in this pair.
        if (left - right) & known[1] and (right - left) & known[0]:
            groups.setdefault(kinds[number], []).append(number)
    found = []
    for group in groups.values():
        found += [pair for pair in combinations(group, 2) if _names_cross(every[pair[0]], every[pair[1]])]
    return tuple(found)


def _names_cross(one: tuple[Words, Words], two: tuple[Words, Words]) -> bool:
    """Whether `query` is to `key` on the left as `key` is to `query` on the right."""
    ours, others = one[0] - two[0], two[0] - one[0]
    theirs, rest = one[1] - two[1], two[1] - one[1]
    return bool(ours & rest and others & theirs and not ours & theirs and not others & rest)
