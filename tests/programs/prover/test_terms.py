"""Terms and views: what a view may do without changing the term."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from equiv.programs.prover.terms import (
    Value,
    atom,
    attributes,
    broadcast,
    elementwise,
    literal,
    number,
    on_term,
    permute,
    reshape,
    seen_through,
)

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def seen(value: Value, array: np.ndarray) -> np.ndarray:
    """The array of a value, from the array of its term."""
    used = [axis for axis in value.axes if axis is not None]
    moved = np.transpose(array, used)
    unit = moved.reshape([1 if axis is None else array.shape[axis] for axis in value.axes])
    return np.broadcast_to(unit, value.shape)


def fresh(name: str, shape: tuple[int, ...]) -> tuple[Value, np.ndarray]:
    """A value, its term's array and, which is the same but for unit axes, its own."""
    array = np.random.default_rng(len(name)).normal(size=shape)
    return atom(name, shape, "float64"), array.squeeze()


@given(SHAPES, st.data())
def test_views_show_what_numpy_shows(shape, data):
    value, array = fresh("x", shape)
    own = array.reshape(shape)
    order = data.draw(st.permutations(range(len(shape))))
    value, own = permute(value, order), own.transpose(order)
    wide = tuple(size if size != 1 else data.draw(st.integers(1, 3)) for size in value.shape)
    places = tuple(range(1, len(wide) + 1))
    value = broadcast(value, (2, *wide), places)
    own = np.broadcast_to(own[None], (2, *wide))
    np.testing.assert_array_equal(seen(value, array), own)


@given(SHAPES, st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_reshape_that_adds_and_drops_unit_axes_is_a_view(shape, units):
    value, array = fresh("x", shape)
    kept = [size for size in shape if size != 1]
    target: list[int] = []
    for unit, size in zip(units, [*kept, 1, 1, 1, 1, 1], strict=False):
        target += [1, size] if unit else [size]
    target += kept[5:]
    changed = reshape(value, target)
    assert changed.term == value.term
    np.testing.assert_array_equal(seen(changed, array), array.reshape(target))


def test_a_reshape_of_a_transposed_value_keeps_the_permutation():
    value, array = fresh("x", (2, 3))
    changed = reshape(permute(value, (1, 0)), (3, 1, 2))
    np.testing.assert_array_equal(seen(changed, array), array.T.reshape(3, 1, 2))


def test_a_reshape_that_merges_axes_is_a_term_of_its_own():
    value, _ = fresh("x", (2, 3))
    flat, other = reshape(value, (6,)), reshape(permute(value, (1, 0)), (6,))
    assert len({value.term, flat.term, other.term}) == 3
    assert reshape(value, (3, 2)).term not in (value.term, flat.term)


def test_a_square_and_its_transpose_have_one_term_and_two_names():
    value, _ = fresh("x", (3, 3))
    assert permute(value, (1, 0)).term == value.term
    assert permute(value, (1, 0)).name != value.name


def test_the_name_tells_shapes_and_dtypes_apart():
    value = atom("x", (3,), "float32")
    wide = broadcast(value, (2, 3), (1,))
    assert len({value.name, wide.name, broadcast(value, (4, 3), (1,)).name, atom("x", (3,), "float64").name}) == 4


def test_a_view_is_plain_where_it_only_drops_unit_axes():
    value = atom("x", (2, 1, 3), "float32")
    assert value.plain
    assert not permute(value, (2, 1, 0)).plain
    assert not broadcast(value, (2, 5, 3), (0, 1, 2)).plain


def test_one_number_everywhere_is_a_scalar_spread_out():
    assert literal(np.full((2, 3), 0.5, "float32")) == number(np.float32(0.5), (2, 3))
    assert literal(np.full((2, 3), 0.5, "float32")).term == literal(np.float32(0.5)).term
    assert literal(np.float32(0.5)).term != literal(np.float64(0.5)).term
    assert literal(np.array([0.5, 0.25])).constant is None


def test_zero_and_minus_zero_are_two_numbers_and_nan_is_one():
    assert literal(np.float32(0.0)).term != literal(np.float32(-0.0)).term
    assert literal(np.array([0.0, -0.0])).constant is None
    assert literal(np.array([np.nan, np.nan])).term == literal(np.float64(np.nan)).term


def test_a_constant_array_is_known_by_its_numbers_and_layout():
    array = np.arange(6.0).reshape(2, 3)
    assert literal(array).name == literal(array.copy(order="F")).name
    assert literal(array).name == permute(literal(np.ascontiguousarray(array)), (0, 1)).name
    assert literal(array).term != literal(array.reshape(3, 2)).term
    assert literal(array).term == literal(array[:, None]).term
    assert literal(np.zeros((0, 3))).name != literal(np.zeros((3, 0))).name


def plus(one: Value, other: Value, commutes: bool = True) -> Value:
    return elementwise("plus", [one, other], one.shape, one.dtype, commutes)


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_the_order_of_axes_of_an_elementwise_result_is_a_view(order, other):
    x, y = atom("x", (3, 3, 3), "float32"), atom("y", (3, 3, 3), "float32")
    y = permute(y, other)
    before = permute(plus(x, y), order)
    after = plus(permute(x, order), permute(y, order))
    assert before == after


def test_which_axes_meet_counts():
    x, y = atom("x", (3, 3), "float32"), atom("y", (3, 3), "float32")
    assert plus(x, y).term != plus(x, permute(y, (1, 0))).term
    rows, columns = (
        broadcast(atom("v", (3,), "float32"), (3, 3), (1,)),
        broadcast(atom("v", (3,), "float32"), (3, 3), (0,)),
    )
    assert plus(x, rows).term != plus(x, columns).term
    assert plus(rows, columns).name != plus(rows, rows).name


def test_the_order_of_operands_counts_only_where_it_does():
    x, y = atom("x", (3,), "float32"), atom("y", (3,), "float32")
    assert plus(x, y) == plus(y, x)
    assert plus(x, y, commutes=False).term != plus(y, x, commutes=False).term


def test_an_elementwise_term_lives_on_the_axes_that_its_operands_have():
    row = broadcast(atom("v", (3,), "float32"), (5, 3), (1,))
    result = plus(row, number(np.float32(2), (5, 3)))
    assert result.axes == (None, 0)
    assert result.term == plus(atom("v", (3,), "float32"), number(np.float32(2), (3,))).term


@given(st.permutations(range(3)))
def test_an_operand_seen_through_its_result_is_that_operand(order):
    x = permute(atom("x", (2, 3, 4), "float32"), (2, 0, 1))
    row = broadcast(atom("v", (3,), "float32"), x.shape, (2,))
    result = plus(x, row)
    for operand in (x, row):
        through = seen_through(permute(result, order), on_term(operand, result))
        assert (through.term, through.axes) == (operand.term, permute(operand, order).axes)


def test_parameters_that_say_where_a_value_lives_do_not_count():
    given_ = {"axes": (0,), "sharding": "here", "accuracy": None, "mode": 1}
    assert attributes(given_) == [("axes", "(0,)"), ("mode", "1")]
    assert attributes(given_, "mode") == [("axes", "(0,)")]
