"""What names say: they break ties, and they are held against a map that the programs have decided."""

import re
from collections.abc import Sequence
from itertools import combinations

from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.port_graph import Reading
from equiv.infer.matching.match import Decision, Matching, Tie, classes

SAME = {"w": "kernel", "b": "bias", "offset": "bias", "embeddings": "embedding", "average": "", "weight": "kernel"}
"""Words of one library for another's."""


FILLING = {"", "ema", "params", "state", "batch", "stats", "module"}
"""Words that say nothing of a leaf."""


def words(key: NativeKey) -> frozenset[str]:
    """A leaf's name in words and numbers, in lower case; a word that occurs again is another word."""
    found: dict[str, int] = {}
    for match in re.finditer(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", key.path):
        word = SAME.get(match[0].lower(), match[0].lower())
        if word not in FILLING:
            found[word] = found.get(word, 0) + 1
    return frozenset(f"{word}#{number}" for word, count in found.items() for number in range(count))


class Naming:
    """Decides by names, once nothing else does."""

    def __init__(self, readings: tuple[Reading, Reading]) -> None:
        self.readings = readings
        self.words = tuple(
            {node: words(reading.key(node)) for node in range(len(reading.blocks))} for reading in readings
        )

    def __call__(self, matching: Matching, ties: list[Tie]) -> list[Decision]:
        """One step: in ties, and among the leaves of one size that are left, those whose names fit no other."""
        sizes = tuple({node: hash(side.labels[node][:2]) for node in side.alive} for side in matching.sides)
        for some in (ties, classes(matching, (sizes[0], sizes[1]))):
            pairs = tuple(pair for tie in some for pair in self.best(tie))
            if pairs:
                return [Decision(pairs, "name")]
        return []

    def best(self, tie: Tie) -> list[tuple[int, int]]:
        """The pairs of a tie that fit each other better than any other, by the share of words in common."""
        near = {(one, two): self._near(one, two) for one in tie[0] for two in tie[1]}
        found = []
        for (one, two), score in near.items():
            rest = [near[one, other] for other in tie[1] if other != two]
            rest += [near[other, two] for other in tie[0] if other != one]
            if score > max(rest, default=0.0):
                found.append((one, two))
        return found

    def _near(self, one: int, two: int) -> float:
        ours, theirs = self.words[0][one], self.words[1][two]
        return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def crossed(pairs: Sequence[tuple[NativeKey, NativeKey, object]]) -> tuple[tuple[int, int], ...]:
    """Pairs of pairs whose names say the opposite: the word that tells two left leaves apart, exchanged on the right.

    Args:
        pairs: left leaf, right leaf, and what only leaves of one kind have in common (their size).
    """
    every = [(words(left), words(right)) for left, right, _ in pairs]
    kinds = [kind for _, _, kind in pairs]
    known = [frozenset(word for pair in every for word in pair[side]) for side in (0, 1)]
    groups: dict[object, list[int]] = {}
    for number, (left, right) in enumerate(every):
        # A word of one side that the other side has too, but not here.
        if (left - right) & known[1] and (right - left) & known[0]:
            groups.setdefault(kinds[number], []).append(number)
    found = []
    for group in groups.values():
        found += [pair for pair in combinations(group, 2) if _crossed(every[pair[0]], every[pair[1]])]
    return tuple(found)


def _crossed(one: tuple[frozenset[str], frozenset[str]], two: tuple[frozenset[str], frozenset[str]]) -> bool:
    """Whether `query` is to `key` on the left as `key` is to `query` on the right."""
    ours, others = one[0] - two[0], two[0] - one[0]
    theirs, rest = one[1] - two[1], two[1] - one[1]
    return bool(ours & rest and others & theirs and not ours & theirs and not others & rest)
