"""Leaves are told apart where all of their budgets say so, and not by anything else."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equiv.comparison.sensitivity.separation import Evidence, separate_leaves

NUMBERS, BUDGETS = st.floats(-4, 4, width=16), st.floats(0, 1, width=16)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, BUDGETS, BUDGETS), min_size=1, max_size=9)


def evidence(*rows: tuple[float, ...]) -> dict[str, Evidence]:
    """Leaves `0`, `1`, ... with two values and their budgets each."""
    return {str(index): Evidence(np.array(row[:2]), np.array(row[2:])) for index, row in enumerate(rows)}


@given(ROWS)
def test_leaves_of_two_clusters_differ_by_more_than_both_budgets(rows):
    given = evidence(*rows)
    clusters = separate_leaves(given).clusters
    assert sorted(leaf for cluster in clusters for leaf in cluster) == sorted(given)
    for one, other in combinations(clusters, 2):
        for left, right in ((given[a], given[b]) for a in one for b in other):
            assert np.any(np.abs(left.values - right.values) > left.budgets + right.budgets)


@given(ROWS)
def test_leaves_with_the_same_evidence_are_not_told_apart(rows):
    clusters = separate_leaves(evidence(*rows, *rows)).clusters
    together = {leaf: cluster for cluster in clusters for leaf in cluster}
    assert all(str(index + len(rows)) in together[str(index)] for index in range(len(rows)))


def test_the_pair_that_differs_least_comes_first():
    found = separate_leaves(evidence((0, 0, 0.1, 0.1), (9, 0, 0.1, 0.1), (9.5, 0, 0.1, 0.1), (30, 0, 0.1, 0.1)))
    assert found.clusters == (("0",), ("1",), ("2",), ("3",))
    assert found.weakest[0] == ("1", "2")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_elements_that_are_not_finite_tell_nothing_apart(value):
    assert separate_leaves(evidence((value, 0, 0, 0), (1, 0, 0, 0))).clusters == (("0", "1"),)


def test_leaves_next_to_each_other_are_one_cluster():
    """The first and the last differ, but neither differs from the one between."""
    assert separate_leaves(evidence((0, 0, 0.4, 0), (0.5, 0, 0.4, 0), (1, 0, 0.4, 0))).clusters == (("0", "1", "2"),)
