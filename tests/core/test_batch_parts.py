"""Parts of a batch: which rows and positions there are, and what is taken of inputs and outputs."""

import numpy as np
import pytest

from equiv.core.batch_parts import find_parts
from equiv.core.batch_spec import KeptValues, parse_batch
from equiv.core.case import BatchInvariance, Padding
from equiv.errors import CaseError

VALID = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]])
"""Padded after, not at all, and before."""

X = np.arange(3 * 4 * 2).reshape(3, 4, 2)


def parts_of(mask, x="float32[3,4,2]", **options):
    kept = mask if isinstance(mask, str) else KeptValues(mask)
    return find_parts(Padding("mask", **options), parse_batch({"x": x, "mask": kept}), ("x", "mask"))


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (VALID, {}),
        (VALID.astype(bool), {}),
        (VALID.astype("float32"), {}),
        (1 - VALID, {"valid": False}),
        (VALID[:, None, None, :], {}),
        (np.tril(np.ones((4, 4), int))[None, None] * VALID[:, None, None, :], {}),
    ],
)
def test_valid_positions_are_those_of_the_mask(mask, options):
    parts = parts_of(mask, **options)
    assert [(one.row, one.positions) for one in parts] == [(0, (0, 1)), (2, (1, 2, 3)), (1, (0, 1, 2, 3))]
    assert np.array_equal(parts[1].take_input("x", X), X[2:3, 1:])
    cut = parts[1].take_input("mask", mask)
    assert cut.shape == (1, *(3 if size == 4 else size for size in mask.shape[1:]))
    assert np.array_equal(cut.astype(bool).any(axis=tuple(range(cut.ndim - 1))), [options.get("valid", True)] * 3)


def test_positions_with_gaps_are_taken_one_by_one():
    (part, _) = parts_of(np.array([[1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]))
    assert np.array_equal(part.take_input("x", X), X[:1, [0, 2]])


def test_lengths_say_which_positions_are_valid():
    parts = parts_of(np.array([2, 4, 3]))
    assert [one.positions for one in parts] == [(0, 1), (0, 1, 2), (0, 1, 2, 3)]
    assert np.array_equal(parts[1].take_input("mask", np.array([2, 4, 3])), [3])


def test_outputs_are_cut_where_the_row_alone_is_smaller():
    part = parts_of(VALID)[0]
    assert part.is_row((3, 4, 4), (1, 2, 4))
    assert np.array_equal(part.take_output(X, (1, 2, 2)), X[:1, :2])
    assert np.array_equal(part.take_output(X.swapaxes(0, 1), (2, 1, 2)), X.swapaxes(0, 1)[:2, :1])
    assert not part.is_row((4, 2), (4, 2))
    assert not part.is_row((3, 4), (1, 3))
    assert not part.is_row((), ())


def test_rows_alone_are_the_first_middle_and_last():
    parts = find_parts(BatchInvariance(), parse_batch({"x": "float32[7,2]"}), ("x",))
    assert [one.row for one in parts] == [0, 3, 6]


@pytest.mark.parametrize(
    ("mask", "x", "message"),
    [
        ("bool[3,4]", "float32[3,4,2]", "the values of 'mask' are random"),
        (np.ones((3, 4)), "float32[3,4,2]", "'mask' leaves out no position"),
        (np.zeros((3, 4)), "float32[3,4,2]", "'mask' leaves out no position"),
        (VALID * -2.0, "float32[3,4,2]", "a mask is of shape \\(3, length\\) with values 0 and 1"),
        (VALID, "float32[3,5,2]", "no input but 'mask' has an axis of its 4 positions"),
        (VALID[:1], "float32[1,4,2]", "a batch of two rows or more is needed, and input 'x' has 1"),
    ],
)
def test_a_mask_that_says_nothing_is_refused(mask, x, message):
    with pytest.raises(CaseError, match=message):
        parts_of(mask, x)


def test_a_mask_that_no_call_takes_is_refused():
    with pytest.raises(CaseError, match="the call takes no input 'pad', only x"):
        find_parts(Padding("pad"), parse_batch({"x": "float32[3,4]"}), ("x",))
