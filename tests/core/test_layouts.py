"""Layouts beyond a reshape: exact both ways, or what is lost; blocks of one leaf make it up whole."""

import inspect
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from equiv.core import layouts, packing
from equiv.core.layouts import (
    Chain,
    DropUnitAxes,
    Flip,
    Identity,
    MergeAxes,
    Scale,
    Shift,
    SplitAxis,
    Squeeze,
    SwapAxes,
    Transpose,
    optimizer_layout,
)
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.packing import Block, Columns, Gate, assemble_native_leaf, check_regions
from equiv.errors import CaseError

SHAPES = array_shapes(min_dims=3, max_dims=5, min_side=1, max_side=4)
AXES = st.sampled_from([(-1,), (-2,), (-3, -2), (-3, -1)])
EXACT = {
    SwapAxes: SHAPES.flatmap(lambda shape: st.sampled_from([(SwapAxes(), shape), (SwapAxes(-3, -1), shape)])),
    Flip: st.tuples(AXES.map(Flip), SHAPES),
    MergeAxes: st.tuples(st.sampled_from([MergeAxes(), MergeAxes(-3)]), SHAPES),
    SplitAxis: SHAPES.map(lambda shape: (SplitAxis(-2, (2, shape[-2], 3)), (*shape[:-2], 6 * shape[-2], shape[-1]))),
    Squeeze: SHAPES.map(lambda shape: (Squeeze((-2, -1)), (*shape, 1, 1))),
    Chain: st.tuples(AXES.map(lambda axes: Chain((Flip(axes), SwapAxes(), MergeAxes()))), SHAPES),
}
"""Layout to native shapes that it takes; a shift is not exact and has its own law."""

EVERY = st.one_of(*EXACT.values())


def numbered(shape, dtype="float32"):
    """An array that no change of layout leaves as it was unnoticed: every element is another one."""
    return np.arange(math.prod(shape)).astype(dtype).reshape(shape)


def test_every_layout_of_the_module_is_tested_here():
    """A new one has to come with its law."""
    classes = [kind for module in (layouts, packing) for _, kind in inspect.getmembers(module, inspect.isclass)]
    classes = [kind for kind in classes if kind.__module__ in (layouts.__name__, packing.__name__)]
    simple = {Identity, DropUnitAxes, Transpose}  # see test_leaves.py
    assert {kind for kind in classes if hasattr(kind, "to_native")} == {*EXACT, Scale, Shift, *simple, layouts.Layout}
    assert {kind for kind in classes if hasattr(kind, "region")} == {Block, Columns, Gate, layouts.Part}


@settings(deadline=None, max_examples=150)
@given(EVERY, st.sampled_from(["float32", "float16", ml_dtypes.bfloat16, "int32"]))
def test_both_ways_are_bit_exact_with_the_stated_shape(layout_and_shape, dtype):
    """Native to canonical and back, canonical to native and back, in numpy."""
    layout, shape = layout_and_shape
    native = numbered(shape, dtype)
    canonical = layout.to_canonical(native)
    assert (canonical.shape, canonical.dtype) == (layout.canonical_shape(shape), native.dtype)
    back = layout.to_native(canonical, shape)
    assert (back.shape, back.tobytes()) == (shape, native.tobytes())
    other = numbered(canonical.shape, dtype)
    assert layout.to_canonical(layout.to_native(other, shape)).tobytes() == other.tobytes()


@pytest.mark.parametrize("layout", [SwapAxes(), Flip((-3, -2)), MergeAxes(), Shift(0.5), DropUnitAxes()], ids=str)
def test_jax_and_numpy_layouts_agree_also_under_a_trace(layout):
    """The programs use jax arrays, the conversion of checkpoints numpy ones."""
    native = numbered((2, 3, 4))
    canonical, back = jax.jit(lambda array: (one := layout.to_canonical(array), layout.to_native(one, array.shape)))(
        native
    )
    np.testing.assert_array_equal(canonical, layout.to_canonical(native))
    np.testing.assert_array_equal(back, native)


def test_packed_leaves_come_together_under_a_trace_too():
    """As a program of a port does it."""
    leaves, native = gates((5, 8), 4, ("input", "hidden")), numbered((5, 8))
    parts = {leaf.name: leaf.to_canonical(native) for leaf in leaves}
    np.testing.assert_array_equal(jax.jit(lambda parts: assemble_native_leaf(leaves, parts))(parts), native)


NUMBERS = st.floats(-1e4, 1e4, width=32)


@settings(deadline=None, max_examples=200)
@given(NUMBERS, st.sampled_from([1.0, -0.5]), st.sampled_from(["float32", "float64", "float16", ml_dtypes.bfloat16]))
def test_a_shift_and_back_loses_at_most_one_larger_spacing(number, offset, dtype):
    """A float plus a number is rounded: what is lost is said, and is no more than that."""
    native = np.array([number]).astype(dtype)
    canonical = Shift(offset).to_canonical(native)
    assert canonical.dtype == native.dtype
    back = Shift(offset).to_native(canonical, native.shape)
    size = max(abs(float(native[0])), abs(offset), abs(float(canonical[0])))
    spacing = size * float(ml_dtypes.finfo(native.dtype).eps)
    assert abs(float(back[0]) - float(native[0])) <= spacing


@given(st.integers(-(2**22), 2**22))
def test_a_shift_loses_nothing_of_a_multiple_of_the_spacing(count):
    """Of numbers up to 2 in float32, say, the multiples of 2**-22."""
    native = np.float32(count * 2.0**-22)
    shift = Shift(1.0)
    assert shift.to_native(shift.to_canonical(native), ()) == native


@settings(deadline=None)
@given(NUMBERS, st.sampled_from([-1.0, 0.25, -8.0]), st.sampled_from(["float32", "float64", ml_dtypes.bfloat16]))
def test_powers_of_two_of_either_sign_are_exact(number, factor, dtype):
    """There and back, bit for bit; another factor rounds each way."""
    native = np.array([number]).astype(dtype)
    if abs(float(native[0])) < 1e-30:
        return  # below the smallest normal number digits are lost
    canonical = Scale(factor).to_canonical(native)
    assert (canonical.dtype, float(canonical[0])) == (native.dtype, float(native[0]) * factor)
    assert Scale(factor).to_native(canonical, native.shape).tobytes() == native.tobytes()


@given(st.floats(0.125, 1024, width=32), st.floats(0.1, 10.0))
def test_another_factor_loses_two_roundings(number, factor):
    """One each way."""
    native = np.array([number], "float32")
    back = Scale(factor).to_native(Scale(factor).to_canonical(native), (1,))
    assert abs(back[0] - native[0]) <= 2 * np.finfo("float32").eps * abs(native[0])


def test_squares_that_an_optimizer_keeps_have_no_sign():
    """Momentum has that of the gradient; a leaf that is doubled has twice the gradient."""
    assert optimizer_layout(Scale(-1.0), "mu") == Scale(-1.0)
    assert optimizer_layout(Scale(-1.0), "nu") == Scale(1.0)
    assert optimizer_layout(Chain((Scale(2.0),)), "nu") == Chain((Scale(0.25),))


def test_what_an_optimizer_keeps_has_the_layout_without_the_number():
    """Momentum of a bias is the same whether 1 is part of the bias or of the code."""
    assert optimizer_layout(Shift(1.0)) == Identity()
    assert optimizer_layout(Chain((SwapAxes(), Shift(1.0)))) == Chain((SwapAxes(), Identity()))
    assert optimizer_layout(MergeAxes(-3)) == MergeAxes(-3)


@pytest.mark.parametrize(
    ("layout", "native", "canonical"),
    [
        (SwapAxes(), [[1, 2], [3, 4]], [[1, 3], [2, 4]]),
        (Flip((-2,)), [[1, 2], [3, 4]], [[3, 4], [1, 2]]),
        (MergeAxes(), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (Squeeze((-1,)), [[1], [2]], [1, 2]),
        (Shift(1.0), [0.5, -1.0], [1.5, 0.0]),
        (Chain((Flip((-2,)), SwapAxes())), [[1, 2], [3, 4]], [[3, 1], [4, 2]]),
    ],
    ids=str,
)
def test_from_native_to_canonical_is_the_way_that_it_says(layout, native, canonical):
    """A law of round trips holds for the inverse too; these numbers do not."""
    np.testing.assert_array_equal(layout.to_canonical(np.array(native)), canonical)


def test_an_axis_that_is_longer_than_one_is_not_dropped():
    """Rather an error of numpy's than a wrong array."""
    with pytest.raises(ValueError, match="size not equal to one"):
        Squeeze((-1,)).to_canonical(np.ones((2, 3)))


def gates(shape, count, rows=("",), items=(None,)):
    """The leaves that a packed leaf holds, one for each gate, block of rows and item of a stack."""
    leaves = []
    for index, row, item in [(i, r, s) for i in range(count) for r in rows for s in items]:
        name = f"{index}/{row}/{item}"
        key, spec = NativeKey("params", "w"), LeafSpec((), "float32")
        part = Gate(index, count, row)
        leaves.append(MappedLeaf(name, key, Identity(), spec, shape, part=part, stack_index=item))
    return leaves


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([1, 3, 4]),
    st.randoms(use_true_random=False),
)
def test_a_packed_leaf_splits_and_joins_bit_for_bit(inputs, size, layers, count, random):
    """Rows of input and hidden state, gates side by side, stacked over layers: the order of the rows does not count."""
    shape = (layers, inputs + size, count * size)
    leaves = gates(shape, count, ("input", "hidden"), range(layers))
    random.shuffle(leaves)
    check_regions("w", shape, [leaf.region for leaf in leaves])
    native = numbered(shape)
    parts = {leaf.name: leaf.to_canonical(native) for leaf in leaves}
    assert {part.shape for part in parts.values()} == {(inputs, size), (size, size)}
    assert assemble_native_leaf(leaves, parts).tobytes() == native.tobytes()


def test_packed_gates_are_columns_and_the_inputs_rows_come_first():
    """As `hk.LSTM` has them: kernel (inputs + size, 4 x size)."""
    native = numbered((5, 8))  # 3 inputs, size 2
    leaf = gates(native.shape, 4, ("input", "hidden"))
    np.testing.assert_array_equal(leaf[2].to_canonical(native), native[:3, 2:4])
    np.testing.assert_array_equal(leaf[3].to_canonical(native), native[3:, 2:4])
    assert leaf[3].storage_description == "gate 1 of 4, rows of the hidden"


ROWS = [((0, 2), (0, 4)), ((2, 3), (0, 4))]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (ROWS[:1], r"w: the rows cover 8 of its 12 elements\. Give every part of it exactly one row\."),
        ([*ROWS, ROWS[1]], r"w: the rows cover 16 of its 12 elements\."),
        ([ROWS[0], ((1, 2), (0, 4))], r"w: the rows that share it overlap\. Give every part of it exactly one row"),
        ([((0, 3), (0, 4)), ((0, 0), (0, 4))], r"w: the rows that share it overlap"),
    ],
    ids=["gap", "twice", "overlap", "empty"],
)
def test_parts_that_do_not_make_up_a_leaf_are_refused(regions, message):
    """Else an element would be lost, or two rows would speak of one."""
    check_regions("w", (3, 4), ROWS)
    with pytest.raises(CaseError, match=message):
        check_regions("w", (3, 4), regions)


def test_layouts_say_what_they_are_in_words():
    """As the tables of a report show them."""
    chain = Chain((Flip((-3,)), SwapAxes()))
    said = [SwapAxes(), Flip((-3, -2)), MergeAxes(-3), Squeeze((-1,)), Shift(1.0), Gate(2), chain]
    assert list(map(str, said)) == [
        "axes -2 and -1 swapped",
        "axes -3, -2 reversed",
        "axes -3 and -2 merged",
        "unit axes -1 dropped",
        "+1",
        "gate 2 of 4",
        "axes -3 reversed, axes -2 and -1 swapped",
    ]


def test_a_leaf_describes_its_region_and_a_whole_one_nothing():
    """The rule that a report quotes."""
    key, spec = NativeKey("params", "w"), LeafSpec((2,), "float32")
    whole = MappedLeaf("a", key, Identity(), spec, (2,))
    assert whole.storage_description == ""
    block = MappedLeaf("a", key, Shift(1.0), spec, (3, 8), part=Gate(2), stack_index=1)
    assert block.storage_description == "layer 1 of a stack, gate 2 of 4, +1"
    assert MappedLeaf("a", key, DropUnitAxes(), spec, (1, 2)).storage_description == "DropUnitAxes()"
    np.testing.assert_array_equal(whole.to_canonical(jnp.ones(2)), np.ones(2))
