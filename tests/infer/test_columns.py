"""Parts of a packed leaf: rows of a layer table that hold a run of its last axis, or a slice of any other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infer_ports import asked, pure, tabled_outputs

from equiv.backends import registry
from equiv.backends.leaf_table import leaves_by_native_key, map_port, to_canonical_variables, to_native_leaves
from equiv.core.case import Layer
from equiv.core.layers import linear, lstm, parameter
from equiv.core.packing import assemble_native_leaf
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


@given(st.integers(1, 2), st.integers(1, 3), st.booleans())
def test_columns_that_recur_come_back_as_they_were(edge, turns, stacked):
    """Of every three columns some are of one layer, the others of another one; also in a stack of layers."""
    stack = (2,) if stacked else ()
    whole = port(**{"all/w": (*stack, 4, 3 * turns), "all/b": (*stack, 3 * turns)})
    layers = [
        linear(f"{name}{item}", haiku=f"all{item}[..., {columns} of 3]")
        for item in (["[0]", "[1]"] if stacked else [""])
        for name, columns in (("a", f"0:{edge}"), ("b", f"{edge}:3"))
    ]
    found = map_port(tuple(layers), whole, HAIKU)
    native = {key: np.arange(np.prod(leaf.shape), dtype="f").reshape(leaf.shape) for key, leaf in whole.leaves.items()}
    parts = to_canonical_variables(found, native)
    first = next(leaf for leaf in found.leaves if leaf.name.startswith("b") and leaf.name.endswith("kernel"))
    assert parts[first.name].shape == (4, (3 - edge) * turns)
    kernel = native[first.key][0] if stacked else native[first.key]
    kept = [column for column in range(3 * turns) if column % 3 >= edge]
    np.testing.assert_array_equal(parts[first.name], kernel[:, kept])
    for key, array in to_native_leaves(found, parts).items():
        np.testing.assert_array_equal(array, native[key])


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        (
            ["[..., 0:2 of 4]"],
            r"\[4, 6\]. Fix the columns: start and stop index .*, within a number .* that divides it",
        ),
        (["[..., 2:4 of 3]"], r"but all/w \(params\) is float32\[4, 6\]. Fix the columns"),
        (["[..., 0:1 of 0]"], r"cannot be read. Write .* \[..., 0:8 of 24\] for those of every 24 columns"),
        (["[..., 0:2 of 3]"], r"the rows cover 16 of its 24 elements"),
        (["[..., 0:2 of 3]", "[..., 1:3 of 3]"], r"the rows cover 32 of its 24 elements"),
        (["[..., 0:1 of 2]", "[..., 0:1 of 3]"], r"count their columns within 2 and 3 columns. Give all rows of one"),
    ],
)
def test_columns_that_recur_otherwise_are_errors(scopes, message):
    """A number that does not divide the axis, too long, none; a gap, an overlap, two numbers for one leaf."""
    with pytest.raises(CaseError, match=message):
        table(*(linear(f"row{at}", haiku=f"all{scope}") for at, scope in enumerate(scopes)))


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


@given(st.integers(1, 3), st.integers(1, 5))
def test_slices_come_back_as_they_were(row, column):
    """Some rows whole, the others in two parts, of which one is a single column without its axis."""
    found = table(
        parameter("top", haiku=f"all/w[0:{row}]"),
        parameter("left", haiku=f"all/w[{row}:4, 0:{column}]"),
        *(parameter(f"at{at}", haiku=f"all/w[{row}:4, {at}]") for at in range(column, 6)),
        parameter("bias", haiku="all/b[:]"),
    )
    native = {key: np.arange(np.prod(one.shape)).reshape(one.shape) for key, one in port().leaves.items()}
    parts = to_canonical_variables(found, native)
    assert parts["left"].shape == (4 - row, column)
    assert parts["at5"].shape == (4 - row,)
    np.testing.assert_array_equal(parts["at5"], native[found["top"].key][row:, 5])
    blocks = leaves_by_native_key(found)
    for key, array in native.items():
        np.testing.assert_array_equal(assemble_native_leaf(blocks[key], parts), array)


@pytest.mark.parametrize("index", ["[0:9]", "[3:3]", "[:, 6]", "[0:2, :, 1]"])
def test_slices_that_do_not_fit_are_errors(index):
    """Too long, empty, beyond the last one, or of more axes than there are."""
    said = rf"says 'all/w{re.escape(index)}', but .*\[4, 6\]. Fix the index: on each axis"
    with pytest.raises(CaseError, match=said):
        table(parameter("a", haiku=f"all/w{index}"))


@pytest.mark.parametrize("index", ["[0:4:2]", "[-1:2]", "[..., 0:1, 2]", "[a]", "[]"])
def test_an_index_that_cannot_be_read_is_an_error(index):
    """Steps, negative numbers, words: the scope is named, and what can be written."""
    with pytest.raises(CaseError, match=r"ends in an index that cannot be read. Write \[2\] for a layer of a stack"):
        table(parameter("a", haiku=f"all/w{index}"))


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
    np.testing.assert_array_equal(*tabled_outputs(*ports, {"x": "float32[5,4]"}))


def attend(q, k, v):
    q, k, v = (y.reshape(*y.shape[:2], 2, 4) for y in (q, k, v))
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v)


@pytest.mark.parametrize(
    ("names", "shape", "scopes"),
    [
        ("dce", (6, 3, 8), ["[:, 0]", "[:, 1]", "[:, 2]"]),
        ("ced", (3, 8, 6), ["[0]", "[1]", "[2]"]),
        ("edc", (8, 6, 3), ["[..., 0:1]", "[..., 1:2]", "[..., 2:3]"]),
    ],
)
def test_packed_projections_on_any_axis_have_rows(names, shape, scopes):
    """Query, key and value packed on the first, the middle or the last axis: each has a row of the table."""

    def packed(p, x):
        y = jnp.einsum(f"btd,{names}->bcte", x, p["qkv"])
        return attend(y[:, 0], y[:, 1], y[:, 2])

    left = pure("haiku", lambda p, x: attend(x @ p["q"], x @ p["k"], x @ p["v"]), **dict.fromkeys("qkv", (6, 8)))
    right, batch = pure("nnx", packed, qkv=shape), {"x": "float32[2,5,6]"}
    rows, _ = infer_rows(propose((left, right), *asked(batch)))
    assert {row.layer.scopes["haiku"]: row.layer.scopes["nnx"] for row in rows} == {
        name: f"qkv{index}" for name, index in zip("qkv", scopes, strict=True)
    }
    np.testing.assert_allclose(*tabled_outputs(left, right, batch), atol=1e-5)


def test_rows_of_a_kernel_stored_out_first_have_rows():
    """(3 * out, in) as PyTorch keeps it: rows of the kernel, swapped, and of the bias."""

    def packed(p, x):
        return attend(*jnp.split(x @ p["w"].T + p["b"], 3, axis=-1))

    def apart(p, x):
        return attend(*(x @ p[name] + p[f"{name}_bias"] for name in "qkv"))

    shapes = dict.fromkeys("qkv", (6, 8)) | {f"{name}_bias": (8,) for name in "qkv"}
    left, right = pure("haiku", apart, **shapes), pure("nnx", packed, w=(24, 6), b=(24,))
    np.testing.assert_allclose(*tabled_outputs(left, right, {"x": "float32[2,5,6]"}), atol=1e-5)
