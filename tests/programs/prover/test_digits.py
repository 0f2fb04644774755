"""Views by digits: a reshape is one, and an operation and a reshape can be exchanged, but only rightly."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from named import make_program

from equiv.programs.prover import digits, joined
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.digits import axis_digits, has_digits, reshape_digits
from equiv.programs.prover.terms import broadcast_term, new_term, transpose_term
from equiv.programs.prover.value_numbering import Numbering, number_program

RULES = {"no rewrites": frozenset(), "all rewrites": frozenset(CONDITIONS)}
SHAPE = (2, 2, 3)
SHAPES = ((12,), (2, 6), (6, 2), (4, 3), (3, 4), (2, 2, 3), (2, 3, 2), (3, 2, 2), (1, 4, 1, 3))


def seen(view, array):
    """The array that a view shows of a term's array."""
    indices = np.indices(view.shape)
    places = [np.zeros(view.shape, int) for _ in array.shape]
    for index in range(len(view.shape)):
        left = indices[index]
        for digit in reversed(axis_digits(view, index)):
            if digit.axis is not None:
                places[digit.axis] += left % digit.size * digit.divisor
            left = left // digit.size
    return array[tuple(places)]


def views(shape):
    """Functions that reshape, transpose and reshape again, for numpy, jax and terms."""
    for middle in SHAPES:
        for order in itertools.permutations(range(len(middle))):
            yield middle, order, shape


def test_a_view_by_digits_shows_what_was_reshaped():
    array, shown = np.arange(12).reshape(SHAPE), 0
    for last in SHAPES:
        for middle, order, _ in views(last):
            value = reshape_digits(new_term("x", SHAPE, "int32"), middle)
            value = None if value is None else reshape_digits(transpose_term(value, order), last)
            if value is not None:
                np.testing.assert_array_equal(seen(value, array), array.reshape(middle).transpose(order).reshape(last))
                shown += has_digits(value)
    assert shown > 20


def test_a_repeated_axis_is_split_and_merged():
    array = np.arange(6).reshape(2, 3)
    wide = broadcast_term(new_term("x", (2, 3), "int32"), (2, 4, 3), (0, 2))
    for shape in ((2, 2, 2, 3), (8, 3), (2, 2, 6), (4, 2, 3), (24,)):
        expected = np.broadcast_to(array[:, None], (2, 4, 3)).reshape(shape)
        np.testing.assert_array_equal(seen(reshape_digits(wide, shape), array), expected)


def test_no_digits_fit_from_two_rows_to_three():
    value = new_term("x", (2, 3), "float32")
    assert reshape_digits(value, (3, 2)) is None
    assert reshape_digits(new_term("x", (0, 3), "float32"), (3, 0)) is None


def operations():
    """Pairs of views of two arrays, and what is made of them, by numpy or by jax."""
    for last in ((2, 6), (3, 4), (2, 2, 3)):
        for number, (middle, order, _) in enumerate(views(last)):

            def view(a, middle=middle, order=order, last=last):
                return a.reshape(middle).transpose(order).reshape(last)

            yield lambda x, y, _, view=view: view(x) + view(y)
            yield lambda x, y, _, view=view: view(x).sum(0)
            yield lambda x, y, _, view=view: (view(x) * view(y)).sum(0)
            yield lambda x, y, xp, view=view: xp.tensordot(view(x), view(y), ((0,), (0,)))
            if number % 3 == 0:
                yield lambda x, y, _, view=view, last=last: view(x) + y.reshape(last)
                yield lambda x, y, xp, view=view, last=last: xp.tensordot(view(x), y.reshape(last), ((-1,), (-1,)))
                yield lambda x, y, _, view=view: view(x + y)


@cache
def everything():
    """All of these as one program, and their values."""
    arrays = np.random.default_rng(0).normal(size=(2, *SHAPE))
    closed = jax.make_jaxpr(lambda x, y: [made(x, y, jnp) for made in operations()])(*arrays)
    outputs = [f"output/{index}" for index in range(len(closed.out_avals))]
    return make_program("p", closed, ("x", "y"), outputs), [made(*arrays, np) for made in operations()]


def wrong_names(rules):
    """Values of one name that are not equal, and how often a name was given again."""
    program, arrays = everything()
    named = number_program(program, Numbering(Algebra(rules)))
    found, wrong, again = {}, [], 0
    for output, array in zip(program.outputs, arrays, strict=True):
        other = found.setdefault(named[output].name, array)
        again += other is not array
        if not np.allclose(other, array):
            wrong.append(str(output))
    return wrong, again


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_reshaped_values_of_one_name_are_equal(rules):
    wrong, again = wrong_names(rules)
    assert wrong == []
    assert again > 100


FAULTS = {
    "digits that do not follow": (digits, "_follows", lambda one, other: one.axis == other.axis),
    "digits in reverse": (
        digits,
        "cut_digits",
        lambda given, sizes, cut=digits.cut_digits: (groups := cut(given, sizes)) and [one[::-1] for one in groups],
    ),
    "pieces without their divisor": (
        joined,
        "join_pieces",
        lambda pieces, join=digits.join_pieces: digits.JoinedPieces(
            join(pieces).pieces, tuple((place, 1) for place, _ in join(pieces).places)
        ),
    ),
    "pieces of another role": (
        digits,
        "_pieces_follow",
        lambda one, other, follow=digits._pieces_follow: follow(one, other._replace(role=one.role)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_rule_of_digits_is_noticed(monkeypatch, fault):
    monkeypatch.setattr(*FAULTS[fault])
    try:
        wrong, _ = wrong_names(frozenset())
    except (AssertionError, IndexError, KeyError, ValueError):
        return  # noticed by itself
    assert wrong


def value_names(function, *shapes, rules=frozenset()):
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    inputs = [f"input {index}" for index in range(len(shapes))]
    outputs = [f"output/{index}" for index in range(len(closed.out_avals))]
    numbered = number_program(make_program("p", closed, inputs, outputs), Numbering(Algebra(rules)))
    return [value.name for value in numbered.values()]


X = (5, 7, 6)

EXCHANGED = {
    "a sum of reshaped arrays": (lambda x, y: x.reshape(35, 6) + y.reshape(35, 6), lambda x, y: (x + y).reshape(35, 6)),
    "a kernel with heads": (
        lambda x, y: (x @ y[0, :6].T).reshape(5, 7, 2, 3),
        lambda x, y: jnp.einsum("abc,hdc->abhd", x, y[0, :6].reshape(2, 3, 6)),
    ),
    "heads contracted apart or together": (
        lambda x, y: x.reshape(35, 6) @ y[0, :4].T,
        lambda x, y: jnp.einsum("ahd,khd->ak", x.reshape(35, 2, 3), y[0, :4].reshape(4, 2, 3)),
    ),
    "a sum over merged axes": (lambda x, y: x.reshape(35, 6).sum(0), lambda x, y: x.sum((0, 1))),
    "a maximum over groups": (lambda x, y: x.reshape(5, 7, 2, 3).max((2, 3)), lambda x, y: x.max(-1)),
    "turned while it was split": (
        lambda x, y: x.reshape(5, 7, 2, 3).transpose(0, 2, 1, 3),
        lambda x, y: x.transpose(0, 2, 1).reshape(5, 2, 3, 7).transpose(0, 1, 3, 2),
    ),
}


@pytest.mark.parametrize("pair", EXCHANGED)
def test_an_operation_and_a_reshape_are_exchanged(pair):
    one, other = EXCHANGED[pair]
    for rules in RULES.values():
        assert value_names(one, X, X, rules=rules) == value_names(other, X, X, rules=rules)


def test_tiling_is_repeating_and_merging():
    def repeated(x):
        return jnp.broadcast_to(x[:, None], (5, 2, 6)).reshape(5, 12)

    assert value_names(lambda x: jnp.tile(x, (1, 2)), (5, 6)) == value_names(repeated, (5, 6))
    assert value_names(lambda x: jnp.repeat(x, 2, 1), (5, 6)) != value_names(repeated, (5, 6))
