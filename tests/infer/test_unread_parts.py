"""Leaves of which eval mode reads a part: the rest is mapped too, so that the table covers every element once."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import asked, pure

from equiv.backends import registry
from equiv.backends.leaf_table import map_port, to_native_leaves
from equiv.infer.matching.propose import propose
from equiv.infer.table.rows import infer_rows

BATCH = {"x": "float32[5,4]"}


def head(first, last, columns=slice(None, 3), rows=False):
    """A layer of which some columns are used, in a kernel of 8, or of 8 rows."""

    def run(p, x):
        kernel = p[first].T if rows else p[first]
        return (x @ kernel + p["b"])[:, columns] @ p[last]

    return run


def with_modes(port, function):
    """A port whose function has the mode as its last argument."""

    def apply(native, method, arguments, train, key):
        return function({leaf.path: value for leaf, value in native.items()}, *arguments, train), native

    return replace(port, has_modes=True, apply=apply)


def tables(left, right):
    """The leaf tables of an inferred layer table, which has to cover both ports, and its evidence."""
    proposal = propose((left, right), *asked(BATCH))
    rows, problems = infer_rows(proposal)
    assert problems == ()
    layers = tuple(row.layer for row in rows)
    held = [map_port(layers, port, registry.load_library(port.library)) for port in (left, right)]
    assert {leaf.name: leaf.spec for leaf in held[0].leaves} == {leaf.name: leaf.spec for leaf in held[1].leaves}
    return held, [pair.evidence for pair in proposal.pairs]


def native_numbers(held):
    """Each port's leaves, for one numbering of all canonical elements."""
    numbers, variables = 0, {}
    for leaf in held[0].leaves:
        size = int(np.prod(leaf.spec.shape))
        variables[leaf.name] = np.arange(numbers, numbers + size, dtype="float32").reshape(leaf.spec.shape)
        numbers += size
    return [{key.path: array for key, array in to_native_leaves(table, variables).items()} for table in held]


SHAPES = {"b": (8,), "last": (3, 2)}


def test_the_unused_half_follows_the_used_one():
    held, _ = tables(
        pure("haiku", head("w", "last"), w=(4, 8), **SHAPES), pure("nnx", head("v", "last"), v=(4, 8), **SHAPES)
    )
    ours, theirs = native_numbers(held)
    np.testing.assert_array_equal(ours["w"], theirs["v"])
    np.testing.assert_array_equal(ours["b"], theirs["b"])


def test_a_transposed_half_is_transposed_whole():
    held, _ = tables(
        pure("haiku", head("w", "last"), w=(4, 8), **SHAPES),
        pure("nnx", head("v", "last", rows=True), v=(8, 4), **SHAPES),
    )
    ours, theirs = native_numbers(held)
    np.testing.assert_array_equal(ours["w"], theirs["v"].T)


@pytest.mark.parametrize("rows", [False, True])
def test_parts_that_moved_leave_the_rest_in_order(rows):
    """The first three columns of eight are used, and the last three, or the last three rows, in the other port."""
    left = pure("haiku", head("w", "last", slice(0, 3)), w=(4, 8), **SHAPES)
    right = pure("nnx", head("v", "last", slice(5, 8), rows), v=(8, 4) if rows else (4, 8), **SHAPES)
    held, evidence = tables(left, right)
    assert evidence.count("order") == 2
    ours, theirs = native_numbers(held)
    np.testing.assert_array_equal(ours["w"], np.roll(theirs["v"].T if rows else theirs["v"], 3, axis=1))


def two_heads(p, x, train):
    mean, spread = jnp.split(x @ p["w"], 2, axis=-1)
    return (mean + jnp.exp(spread) if train else mean) @ p["last"]


def two_layers(p, x, train):
    return (x @ p["mean"] + jnp.exp(x @ p["spread"]) if train else x @ p["mean"]) @ p["last"]


def swapped_heads(p, x, train):
    spread, mean = jnp.split(x @ p["v"], 2, axis=-1)
    return (mean + jnp.exp(spread) if train else mean) @ p["last"]


@pytest.mark.parametrize(
    ("other", "shapes"), [(two_layers, {"mean": (4, 4), "spread": (4, 4)}), (swapped_heads, {"v": (4, 8)})]
)
def test_what_train_mode_reads_is_mapped_by_train_mode(other, shapes):
    left = with_modes(pure("haiku", two_heads, w=(4, 8), last=(4, 2)), two_heads)
    right = with_modes(pure("nnx", other, **shapes, last=(4, 2)), other)
    held, evidence = tables(left, right)
    assert set(evidence) == {"position"}
    ours, theirs = native_numbers(held)
    batch = np.ones((5, 4), "float32")
    outputs = [
        np.asarray(function({key: array % 3 for key, array in native.items()}, batch, True))
        for function, native in ((two_heads, ours), (other, theirs))
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_a_half_without_counterpart_is_no_table():
    """One port has only the used half: nothing is guessed, and the leaf and both sizes are named."""
    import flax.linen as nn
    from flax import nnx

    from equiv.infer.builders import locate_builder
    from equiv.infer.session import infer_layers

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="last")(nn.Dense(8, name="head")(x)[:, :4])

    class Half(nnx.Module):
        def __init__(self, rngs):
            self.head, self.last = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(self.head(x))

    builders = locate_builder(lambda: Whole(), "left"), locate_builder(lambda rngs: Half(rngs), "right")
    found = infer_layers(builders, BATCH)
    assert not found.covered
    assert found.problems[0].startswith("linen: head/kernel (params) float32[4, 8], shared by head/kernel and others: ")
    assert found.problems[0].endswith("the rows cover 16 of its 32 elements")
