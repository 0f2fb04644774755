"""Calls of methods: read as Python writes them, with inputs by name and constants."""

import numpy as np
import pytest

from equiv.core.method_call import read_calls, read_methods
from equiv.errors import CaseError

BATCH = {"x": "f32[2,3]", "cache": {"key": "f32[2]", "rest": ("i32[2]:5", None)}, "mask": None, "labels": "i32[2]:3"}
ARRAYS = {"x": 0, "cache/key": 1, "cache/rest/0": 2}


def bound(text):
    (call,) = read_methods((text,), BATCH).values()
    return call.bind([ARRAYS[name] for name in call.inputs])


@pytest.mark.parametrize(
    ("text", "positional", "keywords"),
    [
        ("f(x)", (0,), {}),
        ("f(x, None, mask)", (0, None, None), {}),
        ("f(x, -1.5, 'x', (1, 2), scale=2)", (0, -1.5, "x", (1, 2)), {"scale": 2}),
        ("f(cache, x=x)", ({"key": 1, "rest": (2, None)},), {"x": 0}),
        ("f({'image': x, 'n': 3}, (x, None), [x])", ({"image": 0, "n": 3}, (0, None), [0]), {}),
        ("f(x, train=None, use=True)", (0,), {"train": None, "use": True}),
    ],
)
def test_names_are_inputs_and_the_rest_constants(text, positional, keywords):
    assert bound(text) == (positional, keywords)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("f(x, train=True)", True),
        ("f(x, deterministic=True)", False),
        ("f(x, is_training=False)", False),
        ("f(x)", None),
    ],
)
def test_an_argument_for_the_mode_fixes_the_mode(text, mode):
    """It is no keyword of the call: each port has its own name for it."""
    (call,) = read_calls((text,)).values()
    assert (call.mode, call.keywords) == (mode, {})
    assert f"f({', '.join(call.texts)})" == text


def test_a_call_is_said_as_it_is_written():
    text = "__call__(x, ({'a': mask},), [x], 'b', key=-1, train=True)"
    (call,) = read_methods((text,), BATCH).values()
    assert f"__call__({', '.join(call.texts)})" == text


def test_a_part_of_an_input_is_indexed_as_in_numpy():
    text = "f(x[:, 0:2], x[-1], x[::2, 1:])"
    (call,) = read_methods((text,), BATCH).values()
    assert f"f({', '.join(call.texts)})" == text
    x = np.arange(12.0).reshape(3, 4)
    given, _ = call.bind([x])
    for found, wanted in zip(given, (x[:, 0:2], x[-1], x[::2, 1:]), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_labels_are_no_inputs_unless_a_call_names_them():
    (call,) = read_methods(None, BATCH).values()
    assert call.input_names == ("x", "cache", "mask")
    assert call.inputs == ("x", "cache/key", "cache/rest/0")
    assert read_methods({"f": ("labels", "x")}, BATCH)["f"].inputs == ("labels", "x")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("encode",), r"'encode': cannot be read: it is no call of a method\. Write a call with inputs of the batch"),
        (("f(x",), r"'f\(x': cannot be read: '\(' was never closed"),
        (("f(*x)",), r"cannot be read: \*x is neither an input nor a constant"),
        (("f(**x)",), r"cannot be read: \*\* has no names"),
        (("f(x[y])",), r"cannot be read: y is no index of whole numbers"),
        (("f(x[0.5])",), r"cannot be read: 0\.5 is no index of whole numbers"),
        (("f(x + 1)",), r"cannot be read: x \+ 1 is neither an input nor a constant"),
        (("f(jnp.inf)",), r"cannot be read: jnp\.inf is neither"),
        (("f(b'a')",), r"cannot be read: b'a' is neither"),
        (("f(x, train=True, deterministic=True)",), r"train=True and deterministic=True are two modes"),
        (("f(x)", "f(x, 1)"), r"'f\(x, 1\)': f is given twice, first as f\(x\)\. Leave one out"),
        (("f(z)",), r"method f takes 'z', which is no input; the batch has x, cache, mask, labels\. Give an input"),
        (("f(x, mode=fast)",), r"takes 'fast', which is no input.* a text in quotes, 'fast'"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(texts, message):
    with pytest.raises(CaseError, match=message):
        read_methods(texts, BATCH)
