"""Views, forms and relations against numpy: every law on random shapes, transposes, reshapes and flips."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.infer.dataflow.strided_views import (
    access_pattern,
    broadcast_view,
    flip_view,
    loop_body_view,
    reshape_view,
    slice_view,
    transpose_view,
    whole_leaf_view,
)
from equiv.infer.matching.by_gradient import as_accessed
from equiv.infer.matching.relations import element_map, is_part_of
from equiv.infer.table.layout_search import canonical_layouts


def listed(form, size):
    """The places of a leaf's elements in the order of a form."""
    return as_accessed(np.arange(size), form).reshape(-1).tolist()


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def looks(draw, shape=None, steps=4):
    """A view of a leaf and the same of an array that holds each element's place."""
    shape = draw(SIZES) if shape is None else shape
    view, array = whole_leaf_view(shape), np.arange(math.prod(shape)).reshape(shape)
    for _ in range(draw(st.integers(0, steps))):
        kind = draw(st.sampled_from(("transpose", "flip", "merge", "take")))
        if kind == "transpose":
            order = draw(st.permutations(range(array.ndim)))
            view, array = transpose_view(view, order), array.transpose(order)
        elif kind == "flip":
            axis = draw(st.integers(0, array.ndim - 1))
            view, array = flip_view(view, [axis]), np.flip(array, axis)
        elif kind == "merge" and array.ndim > 1:
            new = (array.shape[0] * array.shape[1], *array.shape[2:])
            view, array = reshape_view(view, new), array.reshape(new)
        elif kind == "take":
            axis = draw(st.integers(0, array.ndim - 1))
            stop = draw(st.integers(1, array.shape[axis]))
            cut = slice_view(view, axis, 0, stop)
            if cut is not None:
                view, array = cut, array.take(range(stop), axis=axis)
    return shape, view, array


@given(looks())
def test_view_shows_the_elements_that_numpy_shows(look):
    """Whatever is done to a view, its form lists the places of the array's elements in order."""
    shape, view, array = look
    assert view.shape == array.shape
    assert listed(access_pattern(view), math.prod(shape)) == array.reshape(-1).tolist()


@given(looks(), st.data())
def test_form_puts_the_asked_axes_first(look, data):
    """The axes that are summed over come first, the others follow in their order."""
    shape, view, array = look
    first = data.draw(st.lists(st.integers(0, array.ndim - 1), unique=True))
    rest = [axis for axis in range(array.ndim) if axis not in first]
    wanted = array.transpose([*first, *rest]).reshape(-1).tolist()
    assert listed(access_pattern(view, first), math.prod(shape)) == wanted


@given(looks(shape=(2, 3, 4)), looks(shape=(4, 3, 2)))
@settings(max_examples=300)
def test_relation_and_layouts_say_which_element_is_which(left, right):
    """A relation maps places as both forms list them; layouts of both leaves give one canonical array."""
    (_, one, ours), (_, two, theirs) = left, right
    known = element_map(access_pattern(one), access_pattern(two))
    if known is None or ours.size != 24 or theirs.size != 24:
        return
    pairs = dict(zip(ours.reshape(-1).tolist(), theirs.reshape(-1).tolist(), strict=True))
    assert {place: known.image(place) for place in pairs} == pairs
    assert is_part_of(known, known)
    found = canonical_layouts(known, ((2, 3, 4), (4, 3, 2)))
    assert found is not None
    array = np.arange(24).reshape(2, 3, 4)
    other = np.empty(24, int)
    for place, image in pairs.items():
        other[image] = place
    np.testing.assert_array_equal(found[0].to_canonical(array), found[1].to_canonical(other.reshape(4, 3, 2)))


def test_relation_of_other_leaves_is_noticed():
    """A relation with two rows exchanged is not within the relation of the whole leaves."""
    right = element_map(access_pattern(whole_leaf_view((4, 3))), access_pattern(whole_leaf_view((4, 3))))
    row = element_map(
        access_pattern(whole_leaf_view((4, 3), [(0, 1), (0, 3)])),
        access_pattern(whole_leaf_view((4, 3), [(1, 2), (0, 3)])),
    )
    assert right is not None
    assert row is not None
    assert not is_part_of(right, row)


def test_relation_that_differs_in_the_middle_is_noticed():
    """Both ends of eight elements agree, and so does the second: two axes of two are exchanged in between."""
    whole = element_map(
        access_pattern(whole_leaf_view((2, 2, 2))),
        access_pattern(transpose_view(whole_leaf_view((2, 2, 2)), (1, 0, 2))),
    )
    row = element_map(access_pattern(whole_leaf_view((8,))), access_pattern(whole_leaf_view((8,))))
    assert whole is not None
    assert row is not None
    assert [whole.image(place) for place in (0, 1, 7)] == [row.image(place) for place in (0, 1, 7)]
    assert not is_part_of(whole, row)


def test_repeated_axes_and_loop_iterations():
    """What is broadcast counts once, and the axis of a loop comes first."""
    assert (
        access_pattern(broadcast_view(whole_leaf_view((3,)), (2, 3), (1,))).digits
        == access_pattern(whole_leaf_view((3,))).digits
    )
    assert listed(access_pattern(loop_body_view(whole_leaf_view((2, 3))), first=[0]), 6) == [0, 1, 2, 3, 4, 5]


def test_uneven_reshape_is_no_view():
    """Six elements transposed are not four and two; six as three rows are not two columns of a slice."""
    assert reshape_view(transpose_view(whole_leaf_view((2, 3)), (1, 0)), (2, 3)) is None
    assert slice_view(reshape_view(transpose_view(whole_leaf_view((2, 3)), (1, 0)), (6,)), 0, 0, 3) is None
