"""Leaves that calls write and nothing reads, such as the last value of a norm: paired where ports differ, too."""

from dataclasses import replace

import pytest
from infer_ports import inferred, pure

BATCH = {"x": "float32[5,4]"}


def keeping(backend, kernel, values, **shapes):
    """A port of one layer that keeps some values of the last call, each in its leaf."""
    port = pure(backend, lambda p, x: x @ p[kernel], **{kernel: (4, 3)}, **shapes)
    kept = {key: values[key.path] for key in port.leaves if key.path in values}

    def apply(native, method, arguments, train, key):
        outputs = arguments[0] @ next(array for key, array in native.items() if key.path == kernel)
        return outputs, {**native, **{key: value(arguments[0], outputs) for key, value in kept.items()}}

    collections = {key: "state" if key in kept else "params" for key in port.leaves}
    return replace(port, apply=apply, collections=collections)


def evidence(left, right):
    """Left path to right path and evidence."""
    return {pair.left.path: (pair.right.path, pair.evidence) for pair in inferred(left, right, BATCH).pairs}


def largest(x, y):
    return abs(y).max()


def mean(x, y):
    return y.mean(0)


def test_the_written_value_says_which_leaf_it_is():
    left = keeping("haiku", "w", {"a": largest, "b": mean}, a=(), b=(3,))
    right = keeping("nnx", "v", {"c": largest, "d": mean}, c=(), d=(3,))
    assert evidence(left, right) == {"w": ("v", "position"), "a": ("c", "position"), "b": ("d", "position")}


def test_shape_says_it_where_another_value_is_written():
    left = keeping("haiku", "w", {"a": largest, "b": mean}, a=(), b=(3,))
    right = keeping("nnx", "v", {"c": lambda x, y: x.max(), "d": lambda x, y: x[0, :3]}, c=(), d=(3,))
    assert evidence(left, right) == {"w": ("v", "position"), "a": ("c", "shape"), "b": ("d", "shape")}


def test_names_say_it_of_leaves_of_one_shape():
    left = keeping("haiku", "w", {"top": largest, "low": largest}, top=(), low=())
    right = keeping(
        "nnx", "v", {"the_low": lambda x, y: x.max(), "the_top": lambda x, y: x.min()}, the_low=(), the_top=()
    )
    assert evidence(left, right) == {"w": ("v", "position"), "top": ("the_top", "name"), "low": ("the_low", "name")}


@pytest.mark.parametrize("shapes", [{"c": (3,)}, {"c": (), "d": ()}])
def test_leaves_that_nothing_distinguishes_stay_unpaired(shapes):
    left = keeping("haiku", "w", {"a": largest}, a=())
    value = {(): lambda x, y: x.max(), (3,): mean}
    right = keeping("nnx", "v", {name: value[shape] for name, shape in shapes.items()}, **shapes)
    assert set(evidence(left, right)) == {"w"}
