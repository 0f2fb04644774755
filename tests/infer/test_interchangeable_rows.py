"""Rows of one kernel that receive the same values: interchangeable within their group, and never with another group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import found, inferred, pure, tabled_outputs

from equiv.infer.table.rows import infer_rows

X = {"x": "float32[4,12]"}


def joined(order):
    """A dense layer on halves of the input, in some order: `aabb` reads the first half twice, then the second."""

    def run(p, x):
        half = {"a": x[:, :6], "b": x[:, 6:]}
        return jax.nn.relu(jnp.concatenate([half[one] for one in order], -1) @ p["w"] + p["bias"]) @ p["out"]

    return lambda library: pure(library, run, w=(6 * len(order), 8), bias=(8,), out=(8, 3))


@pytest.mark.parametrize(
    ("one", "two"), [("aabb", "bbaa"), ("abab", "baba"), ("abab", "aabb"), ("aaabb", "bbaaa"), ("abb", "bba")]
)
def test_groups_of_equal_rows_are_not_mixed(one, two):
    """Rows for one half are paired with rows for the same half, in the order in which both ports keep them."""
    left, right = joined(one)("haiku"), joined(two)("nnx")
    places = {}
    for (leaf, ours), (_, theirs) in found(inferred(left, right, X)).items():
        if leaf == "w":
            assert one[ours[0][0] // 6] == two[theirs[0][0] // 6]
            places.setdefault(one[ours[0][0] // 6], []).append((ours[0][0], theirs[0][0]))
    for some in places.values():
        assert [theirs for _, theirs in sorted(some)] == sorted(theirs for _, theirs in some)
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-5)


@pytest.mark.parametrize("order", ["aaaa", "abba", "aabb"])
def test_equal_rows_in_their_order_are_one_kernel(order):
    """Ports that are written alike keep the whole kernel in one row of the table."""
    rows, problems = infer_rows(inferred(joined(order)("haiku"), joined(order)("nnx"), X))
    assert (len(rows), problems) == (1, ())


def test_groups_of_other_sizes_are_paired_in_order():
    """Three rows for one half against two: the ports differ, and only the order of the rows is left to go by."""
    proposal = inferred(joined("aabb")("haiku"), joined("abbb")("nnx"), X)
    assert {pair.evidence for pair in proposal.pairs if pair.left.path == "w"} == {"sequence"}
    assert all(pair.bounds[0] == pair.bounds[1] for pair in proposal.pairs)


def branches(kinds):
    """A sum of branches; `tr` has a tanh in the first and a relu in the second."""

    def run(p, x):
        act = {"t": jnp.tanh, "r": jax.nn.relu}
        return sum(act[kind](x @ p[f"w{at}"] + p[f"b{at}"]) @ p[f"o{at}"] for at, kind in enumerate(kinds))

    shapes = {"w": (12, 6), "b": (6,), "o": (6, 12)}
    return lambda library: pure(
        library, run, **{f"{name}{at}": shape for at in range(len(kinds)) for name, shape in shapes.items()}
    )


@pytest.mark.parametrize(("one", "two"), [("ttrr", "rrtt"), ("trtr", "rtrt"), ("ttrr", "trtr")])
def test_groups_of_equal_branches_are_not_mixed(one, two):
    """Two equal branches of each kind: leaves of a branch stay together, and in a branch of their kind."""
    np.testing.assert_allclose(*tabled_outputs(branches(one)("haiku"), branches(two)("nnx"), X), atol=1e-5)


def looked_up(order):
    """Doubled features of nodes and of their neighbours, which an index looks up, joined in some order."""

    def run(p, x, index):
        x = jnp.concatenate([x @ p["n"]] * 2, -1)
        there = x[index]
        both = {"t": there, "h": jnp.broadcast_to(x[:, None], there.shape)}
        return jax.nn.relu(jnp.concatenate([both[one] for one in order], -1) @ p["w"]) @ p["out"]

    return lambda library: pure(library, run, n=(12, 6), w=(24, 8), out=(8, 3))


@pytest.mark.parametrize("other", ["th", "ht"])
def test_rows_read_through_an_index_keep_their_place(other):
    """A lookup hides that its features are doubled; the rows are found all the same, in another order too."""
    batch = {"x": "float32[4,12]", "index": "int32[4,2]:4"}
    np.testing.assert_allclose(*tabled_outputs(looked_up("th")("haiku"), looked_up(other)("nnx"), batch), atol=1e-5)
