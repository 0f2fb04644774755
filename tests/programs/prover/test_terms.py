"""Terms and views: what a view may do without changing the term."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from equiv.programs.prover.terms import (
    TermView,
    apply_elementwise,
    broadcast_term,
    constant_view,
    literal_view,
    new_term,
    on_term,
    relevant_params,
    reshape_term,
    reshaped_term,
    seen_through,
    transpose_term,
)

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def seen(value: TermView, array: np.ndarray) -> np.ndarray:
    """The array of a value, from the array of its term."""
    used = [axis for axis in value.axes if axis is not None]
    moved = np.transpose(array, used)
    unit = moved.reshape([1 if axis is None else array.shape[axis] for axis in value.axes])
    return np.broadcast_to(unit, value.shape)


def fresh(name: str, shape: tuple[int, ...]) -> tuple[TermView, np.ndarray]:
    """A value, its term's array and, which is the same but for unit axes, its own."""
    array = np.random.default_rng(len(name)).normal(size=shape)
    return new_term(name, shape, "float64"), array.squeeze()


@given(SHAPES, st.data())
def test_views_show_what_numpy_shows(shape, data):
    value, array = fresh("x", shape)
    own = array.reshape(shape)
    order = data.draw(st.permutations(range(len(shape))))
    value, own = transpose_term(value, order), own.transpose(order)
    wide = tuple(size if size != 1 else data.draw(st.integers(1, 3)) for size in value.shape)
    places = tuple(range(1, len(wide) + 1))
    value = broadcast_term(value, (2, *wide), places)
    own = np.broadcast_to(own[None], (2, *wide))
    np.testing.assert_array_equal(seen(value, array), own)


@given(SHAPES, st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_reshape_that_changes_unit_axes_is_a_view(shape, units):
    value, array = fresh("x", shape)
    kept = [size for size in shape if size != 1]
    target: list[int] = []
    for unit, size in zip(units, [*kept, 1, 1, 1, 1, 1], strict=False):
        target += [1, size] if unit else [size]
    target += kept[5:]
    changed = reshape_term(value, target)
    assert changed.term == value.term
    np.testing.assert_array_equal(seen(changed, array), array.reshape(target))


def test_a_reshape_of_a_transposed_value_keeps_the_permutation():
    value, array = fresh("x", (2, 3))
    changed = reshape_term(transpose_term(value, (1, 0)), (3, 1, 2))
    np.testing.assert_array_equal(seen(changed, array), array.T.reshape(3, 1, 2))


def test_a_reshape_that_is_no_view_is_its_own_term():
    value, _ = fresh("x", (2, 3))
    assert reshape_term(value, (6,)) is None
    assert reshape_term(value, (3, 2)) is None
    terms = {reshaped_term(one, (3, 2)).term for one in (value, transpose_term(value, (1, 0)))}
    assert len({value.term, *terms}) == 3


def test_a_square_and_its_transpose_share_one_term():
    """They have two names."""
    value, _ = fresh("x", (3, 3))
    assert transpose_term(value, (1, 0)).term == value.term
    assert transpose_term(value, (1, 0)).name != value.name


def test_the_name_includes_shape_and_dtype():
    value = new_term("x", (3,), "float32")
    wide = broadcast_term(value, (2, 3), (1,))
    assert (
        len({value.name, wide.name, broadcast_term(value, (4, 3), (1,)).name, new_term("x", (3,), "float64").name}) == 4
    )


def test_a_view_is_plain_where_it_only_drops_unit_axes():
    value = new_term("x", (2, 1, 3), "float32")
    assert value.plain
    assert not transpose_term(value, (2, 1, 0)).plain
    assert not broadcast_term(value, (2, 5, 3), (0, 1, 2)).plain


def test_one_number_everywhere_is_a_scalar_spread_out():
    assert literal_view(np.full((2, 3), 0.5, "float32")) == constant_view(np.float32(0.5), (2, 3))
    assert literal_view(np.full((2, 3), 0.5, "float32")).term == literal_view(np.float32(0.5)).term
    assert literal_view(np.float32(0.5)).term != literal_view(np.float64(0.5)).term
    assert literal_view(np.array([0.5, 0.25])).constant is None


def test_zero_and_minus_zero_differ_and_nan_is_one():
    assert literal_view(np.float32(0.0)).term != literal_view(np.float32(-0.0)).term
    assert literal_view(np.array([0.0, -0.0])).constant is None
    assert literal_view(np.array([np.nan, np.nan])).term == literal_view(np.float64(np.nan)).term


def test_a_constant_array_is_known_by_its_numbers_and_layout():
    array = np.arange(6.0).reshape(2, 3)
    assert literal_view(array).name == literal_view(array.copy(order="F")).name
    assert literal_view(array).name == transpose_term(literal_view(np.ascontiguousarray(array)), (0, 1)).name
    assert literal_view(array).term != literal_view(array.reshape(3, 2)).term
    assert literal_view(array).term == literal_view(array[:, None]).term
    assert literal_view(np.zeros((0, 3))).name != literal_view(np.zeros((3, 0))).name


def plus(one: TermView, other: TermView, commutes: bool = True) -> TermView:
    return apply_elementwise("plus", [one, other], one.shape, one.dtype, commutes)


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_the_axis_order_of_an_elementwise_result_is_a_view(order, other):
    x, y = new_term("x", (3, 3, 3), "float32"), new_term("y", (3, 3, 3), "float32")
    y = transpose_term(y, other)
    before = transpose_term(plus(x, y), order)
    after = plus(transpose_term(x, order), transpose_term(y, order))
    assert before == after


def test_which_axes_meet_counts():
    x, y = new_term("x", (3, 3), "float32"), new_term("y", (3, 3), "float32")
    assert plus(x, y).term != plus(x, transpose_term(y, (1, 0))).term
    rows, columns = (
        broadcast_term(new_term("v", (3,), "float32"), (3, 3), (1,)),
        broadcast_term(new_term("v", (3,), "float32"), (3, 3), (0,)),
    )
    assert plus(x, rows).term != plus(x, columns).term
    assert plus(rows, columns).name != plus(rows, rows).name


def test_the_order_of_operands_counts_only_where_it_does():
    x, y = new_term("x", (3,), "float32"), new_term("y", (3,), "float32")
    assert plus(x, y) == plus(y, x)
    assert plus(x, y, commutes=False).term != plus(y, x, commutes=False).term


def test_an_elementwise_term_has_the_axes_of_its_operands():
    row = broadcast_term(new_term("v", (3,), "float32"), (5, 3), (1,))
    result = plus(row, constant_view(np.float32(2), (5, 3)))
    assert result.axes == (None, 0)
    assert result.term == plus(new_term("v", (3,), "float32"), constant_view(np.float32(2), (3,))).term


@given(st.permutations(range(3)))
def test_an_operand_seen_through_its_result_is_that_operand(order):
    x = transpose_term(new_term("x", (2, 3, 4), "float32"), (2, 0, 1))
    row = broadcast_term(new_term("v", (3,), "float32"), x.shape, (2,))
    result = plus(x, row)
    for operand in (x, row):
        through = seen_through(transpose_term(result, order), *on_term([operand], result))
        assert (through.term, through.axes) == (operand.term, transpose_term(operand, order).axes)


def test_parameters_that_say_where_a_value_lives_do_not_count():
    given_ = {"axes": (0,), "sharding": "here", "weak_type": True, "mode": 1}
    assert relevant_params(given_) == [("axes", ("tuple", 0)), ("mode", 1)]
    assert relevant_params(given_, "mode") == [("axes", ("tuple", 0))]
