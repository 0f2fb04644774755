"""Separate leaves by what was computed of each: in one pass over all of them, instead of pair by pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MOST_ELEMENTS = 64
"""Number of elements by which leaves are separated: those in which they differ most."""


@dataclass(frozen=True)
class Evidence:
    """What was computed of one leaf.

    Attributes:
        values: float64, one axis; those of all leaves that are separated belong to the same elements.
        budgets: how far rounding can move each of them.
    """

    values: np.ndarray
    budgets: np.ndarray


@dataclass(frozen=True)
class Separation:
    """Leaves that are separated.

    Attributes:
        clusters: the leaves; any two of different clusters differ by more than the budgets of both.
        weakest: pairs of different clusters, next to each other; those first that differ least.
    """

    clusters: tuple[tuple[str, ...], ...]
    weakest: tuple[tuple[str, str], ...] = ()


def separate_leaves(evidence: Mapping[str, Evidence]) -> Separation:
    """Separate leaves; linear in their number but for sorting them.

    Args:
        evidence: leaf to what was computed of it, all of one shape.
    """
    chosen = _most_different_elements(list(evidence.values()))
    values = {leaf: one.values[chosen] for leaf, one in evidence.items()}
    budgets = {leaf: one.budgets[chosen] for leaf, one in evidence.items()}
    clusters: list[list[str]] = [list(evidence)]
    neighbours: dict[tuple[str, str], float] = {}
    for element in range(len(chosen)):
        split: list[list[str]] = []
        for cluster in clusters:
            parts = list(_split_cluster(cluster, element, values, budgets))
            for one, other in pairwise(parts):
                pair = one[-1], other[0]
                distance = np.abs(values[pair[0]] - values[pair[1]])
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    neighbours[pair] = float(np.nanmax(distance / (budgets[pair[0]] + budgets[pair[1]])))
            split += parts
        clusters = split
    weakest = sorted(neighbours, key=lambda pair: neighbours[pair])
    order = {leaf: index for index, leaf in enumerate(evidence)}
    found = sorted((sorted(cluster, key=order.__getitem__) for cluster in clusters), key=lambda one: order[one[0]])
    return Separation(tuple(map(tuple, found)), tuple(weakest))


def _most_different_elements(evidence: Sequence[Evidence]) -> np.ndarray:
    """Indices of the elements that differ most, in budgets; of those that are finite in every leaf."""
    low, high, budget = (evidence[0].values, evidence[0].values, evidence[0].budgets)
    for one in evidence[1:]:
        low, high = np.minimum(low, one.values), np.maximum(high, one.values)
        budget = np.maximum(budget, one.budgets)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = np.where((high > low) & np.isfinite(high - low), (high - low) / budget, 0.0)
    order = np.argsort(-spread, kind="stable")[:MOST_ELEMENTS]
    return order[spread[order] > 0]


def _split_cluster(
    cluster: Sequence[str], element: int, values: Mapping[str, np.ndarray], budgets: Mapping[str, np.ndarray]
) -> Iterator[list[str]]:
    """Split leaves wherever all before and all after differ by more than the budgets of both, in one element."""
    ends = {
        leaf: (values[leaf][element] - budgets[leaf][element], values[leaf][element] + budgets[leaf][element])
        for leaf in cluster
    }
    part: list[str] = []
    reach = -np.inf
    for leaf in sorted(cluster, key=lambda one: ends[one]):
        if part and ends[leaf][0] > reach:
            yield part
            part, reach = [], -np.inf
        part.append(leaf)
        reach = max(reach, ends[leaf][1])
    yield part
