"""Every layout is an exact round trip, and says beforehand which shape it gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from equiv.core.layouts import DropUnitAxes, Identity, Transpose
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey

SHAPES = array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
WITH_SHAPE = {
    Identity: SHAPES.map(lambda shape: (Identity(), shape)),
    DropUnitAxes: SHAPES.map(lambda shape: (DropUnitAxes(), shape)),
    Transpose: SHAPES.flatmap(
        lambda shape: st.permutations(range(len(shape))).map(lambda axes: (Transpose(tuple(axes)), shape))
    ),
}
"""Layout to native shapes that it takes."""

EVERY = st.one_of(*WITH_SHAPE.values())


def numbered(shape):
    """An array that no change of layout leaves as it was unnoticed: every element is another one."""
    return np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)


@settings(deadline=None, max_examples=200)
@given(EVERY)
def test_native_to_canonical_and_back_is_bit_for_bit(layout_and_shape):
    layout, shape = layout_and_shape
    native = numbered(shape)
    back = layout.to_native(layout.to_canonical(native), shape)
    assert back.shape == shape
    assert back.tobytes() == native.tobytes()


@settings(deadline=None, max_examples=200)
@given(EVERY)
def test_canonical_to_native_and_back_is_bit_for_bit(layout_and_shape):
    layout, shape = layout_and_shape
    canonical = numbered(layout.canonical_shape(shape))
    back = layout.to_canonical(layout.to_native(canonical, shape))
    assert back.shape == canonical.shape
    assert back.tobytes() == canonical.tobytes()


@settings(deadline=None, max_examples=200)
@given(EVERY)
def test_canonical_shape_is_the_shape_that_to_canonical_gives(layout_and_shape):
    layout, shape = layout_and_shape
    assert layout.to_canonical(numbered(shape)).shape == layout.canonical_shape(shape)


@settings(deadline=None, max_examples=50)
@given(EVERY, st.sampled_from(["float32", "float16", "bfloat16", "int32", "bool"]))
def test_no_layout_changes_a_dtype(layout_and_shape, dtype):
    layout, shape = layout_and_shape
    native = jax.ShapeDtypeStruct(shape, dtype)
    canonical = jax.eval_shape(layout.to_canonical, native)
    back = jax.eval_shape(lambda array: layout.to_native(array, shape), canonical)
    assert (canonical.dtype, back.dtype) == (native.dtype, native.dtype)


@pytest.mark.parametrize(
    ("native", "canonical"),
    [
        ((1, 8), (8,)),
        ((5, 1, 8), (5, 8)),
        ((1, 1, 1, 8), (8,)),
        ((8,), (8,)),
        ((1, 1), (1,)),
        ((5, 1, 1), (5, 1)),
        ((1,), (1,)),
        ((), ()),
    ],
    ids=lambda shape: "x".join(map(str, shape)) or "scalar",
)
def test_unit_axes_are_dropped_before_the_last_only(native, canonical):
    """One feature stays an axis: `(1, 1)` is `(1,)`, not a scalar."""
    layout = DropUnitAxes()
    assert layout.canonical_shape(native) == canonical
    array = numbered(native)
    assert layout.to_canonical(array).shape == canonical
    np.testing.assert_array_equal(layout.to_native(layout.to_canonical(array), native), array)


def test_transpose_moves_axes_as_numpy_does():
    array = numbered((2, 3, 4))
    np.testing.assert_array_equal(Transpose((2, 0, 1)).to_canonical(array), np.transpose(array, (2, 0, 1)))


def test_layouts_take_jax_arrays_under_a_trace():
    array = jnp.arange(8.0).reshape(1, 8)
    traced = jax.jit(lambda native: DropUnitAxes().to_native(DropUnitAxes().to_canonical(native), (1, 8)))
    np.testing.assert_array_equal(traced(array), array)


def leaf(name, collection="params", **own):
    return MappedLeaf(name, NativeKey(collection, name), Identity(), LeafSpec((2,), "float32", collection), (2,), **own)


def test_a_leaf_table_is_read_by_name_and_collection():
    table = LeafTable("haiku", (leaf("a/kernel"), leaf("b/mean", "state")))
    assert table["b/mean"].key == NativeKey("state", "b/mean")
    assert table.names() == ("a/kernel", "b/mean")
    assert table.names("params") == ("a/kernel",)
    assert table.names("state") == ("b/mean",)


@pytest.mark.parametrize(
    ("more", "library_only"),
    [({}, False), ({"mirrors": "a/mean"}, True), ({"fixed_value": 0}, True)],
    ids=["shared", "copy", "constant"],
)
def test_a_leaf_that_mirrors_or_is_constant_is_library_only(more, library_only):
    assert leaf("a/mean.hidden", **more).library_only is library_only


def test_specs_and_places_are_shown_as_they_are_written():
    assert str(LeafSpec((8, 3), "bfloat16")) == "bfloat16[8, 3]"
    assert str(NativeKey("batch_stats", "norm/mean")) == "norm/mean (batch_stats)"
