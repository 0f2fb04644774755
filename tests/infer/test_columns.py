"""Columns of a packed leaf: rows of a layer table that hold a run of its last axis."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infer_ports import asked, pure

from equiv.backends import registry
from equiv.backends.leaf_table import map_port, to_canonical_variables, to_native_leaves
from equiv.core.case import Layer
from equiv.core.layers import linear, lstm
from equiv.errors import CaseError
from equiv.infer.matching.propose import propose
from equiv.infer.table.rows import infer_rows

HAIKU = registry.load_library("haiku")


def port(**shapes):
    return pure("haiku", lambda p, x: x, **(shapes or {"all/w": (4, 6), "all/b": (6,)}))


def table(*layers: Layer):
    return map_port(layers, port(), HAIKU)


@given(st.integers(1, 5))
def test_columns_come_back_as_they_were(edge):
    """Wherever two layers meet in a packed one: split and joined again it is the same array, biases too."""
    found = table(linear("a", haiku=f"all[..., 0:{edge}]"), linear("b", haiku=f"all[...,{edge}:6]"))
    shapes = {leaf.key: leaf.native_shape for leaf in found.leaves}
    native = {key: np.random.default_rng(7).normal(size=shape).astype("float32") for key, shape in shapes.items()}
    parts = to_canonical_variables(found, native)
    assert {name: array.shape for name, array in parts.items()} == {
        "a/kernel": (4, edge), "a/bias": (edge,), "b/kernel": (4, 6 - edge), "b/bias": (6 - edge,),
    }  # fmt: skip
    for key, array in to_native_leaves(found, parts).items():
        np.testing.assert_array_equal(array, native[key])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((linear("a", haiku="all[..., 0:3]"),), r"all/w \(params\) float32\[4, 6\].* the rows cover 12 of its 24"),
        (
            (linear("a", haiku="all[..., 0:4]"), linear("b", haiku="all[..., 2:4]")),
            r"shared by a/kernel and others: the rows that share it overlap",
        ),
        (
            (linear("a", haiku="all[..., 3:9]"),),
            r"row a says 'all\[..., 3:9\]', but all/w \(params\) is float32\[4, 6\]. Fix the columns: start",
        ),
        (
            (linear("a", haiku="all[..., 3:3]"),),
            r"row a says 'all\[..., 3:3\]', but all/w \(params\) is float32\[4, 6\]. Fix the columns",
        ),
    ],
)
def test_columns_that_do_not_fit_are_errors(layers, message):
    """A gap, an overlap, a run that is too long or empty: the row, the leaf and both sizes are named."""
    with pytest.raises(CaseError, match=message):
        table(*layers)


def test_a_kind_that_takes_parts_takes_no_columns():
    """The kind of a packed LSTM splits it already."""
    cell = port(**{"all/linear/w": (9, 24), "all/linear/b": (24,)})
    with pytest.raises(CaseError, match=r"row a takes columns 0 to 5 of .*, which the kind 'lstm' splits already"):
        map_port((lstm("a", haiku="all[..., 0:6]"),), cell, HAIKU)


def test_inferred_columns_make_the_same_function():
    """One kernel for two, one of them transposed: whole numbers go through both ports and come out the same."""

    def apart(p, x):
        return jax.nn.relu(x @ p["a"]) * (x @ p["b"].T)

    def side_by_side(p, x):
        y = x @ p["w"]
        return jax.nn.relu(y[..., :3]) * y[..., 3:]

    ports = pure("haiku", apart, a=(4, 3), b=(3, 4)), pure("nnx", side_by_side, w=(4, 6))
    found, problems = infer_rows(propose(ports, *asked({"x": "float32[5,4]"})))
    assert problems == ()
    assert {row.layer.scopes["haiku"]: row.layer.scopes["nnx"] for row in found} == {
        "a": "w[..., 0:3]",
        "b": "w[..., 3:6]",
    }
    tables = [map_port(tuple(row.layer for row in found), one, registry.load_library(one.library)) for one in ports]
    rng = np.random.default_rng(7)
    whole = {leaf.name: rng.integers(-9, 9, leaf.spec.shape).astype("float32") for leaf in tables[0].leaves}
    batch = rng.integers(-9, 9, (5, 4)).astype("float32")
    outputs = [
        one.apply(to_native_leaves(held, whole), "__call__", (batch,), False, None)[0]
        for one, held in zip(ports, tables, strict=True)
    ]
    assert np.abs(outputs[0]).sum() > 0
    np.testing.assert_array_equal(*outputs)
