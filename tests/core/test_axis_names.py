"""Names of axes go where a layout takes the axes."""

import pytest

from equiv.core.annotation import Annotation, resolve_names, rules_for
from equiv.core.axis_names import MergedAxis, canonical_axis_names, stack_axis_names
from equiv.core.layouts import (
    Chain,
    DropUnitAxes,
    Flip,
    Identity,
    MergeAxes,
    Shift,
    SplitAxis,
    Squeeze,
    SwapAxes,
    Transpose,
)
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.packing import Block, Columns


def leaf(layout, shape, **options):
    return MappedLeaf("w", NativeKey("params", "w"), layout, LeafSpec((), "float32"), shape, **options)


@pytest.mark.parametrize(
    ("layout", "shape", "names", "wanted"),
    [
        (Identity(), (4, 6), ("a",), ("a", None)),
        (Transpose((2, 0, 1)), (2, 3, 4), ("a", "b", "c"), ("c", "a", "b")),
        (SwapAxes(), (3, 5, 4), ("a", "b", "c"), ("a", "c", "b")),
        (Flip((-1,)), (3, 4), ("a", "b"), ("a", "b")),
        (Shift(1.0), (4,), ("a",), ("a",)),
        (Squeeze((-2, -1)), (8, 1, 1), ("a",), ("a",)),
        (DropUnitAxes(), (1, 1, 8), (None, None, "a"), ("a",)),
        (MergeAxes(), (7, 2, 3), ("a", "b", None), ("a", "b")),
        (MergeAxes(), (7, 2, 3), ("a", None, "b"), ("a", MergedAxis((None, "b")))),
        (MergeAxes(-3), (2, 3, 7), ("a", None, "b"), ("a", "b")),
        (SplitAxis(-1, (2, 3)), (7, 6), (None, "b"), (None, "b", None)),
        (Chain((SplitAxis(-1, (2, 3)), Transpose((1, 0, 2)))), (7, 6), ("a", "b"), ("b", "a", None)),
    ],
    ids=str,
)
def test_names_follow_the_axes(layout, shape, names, wanted):
    assert canonical_axis_names(leaf(layout, shape), names) == wanted


def test_a_block_keeps_the_names_of_its_axes():
    packed = leaf(Identity(), (4, 12), part=Columns(0, 6))
    assert canonical_axis_names(packed, ("a", "b")) == ("a", "b")
    row = leaf(Identity(), (3, 4, 12), part=Block((None, 1)))
    assert canonical_axis_names(row, ("a", "b", "c")) == ("a", "c")
    assert stack_axis_names(row, ("a", "b", "c")) == ("b",)


def test_one_layer_lacks_the_axis_of_its_stack():
    layer = leaf(Identity(), (5, 4, 6), stack_index=2)
    assert canonical_axis_names(layer, ("layers", "a", "b")) == ("a", "b")
    assert stack_axis_names(layer, ("layers", "a", "b")) == ("layers",)


def test_more_names_than_axes_are_not_followed():
    assert canonical_axis_names(leaf(Identity(), (4,)), ("a", "b")) is None


@pytest.mark.parametrize(
    ("names", "rules", "mesh", "wanted"),
    [
        (("embed", "mlp"), (("mlp", "model"),), ("model",), (None, "model")),
        (("mlp", "heads"), (("heads", "model"), ("mlp", "model")), ("model",), (None, "model")),
        (
            ("mlp", "heads"),
            (("heads", "model"), ("mlp", "model"), ("mlp", "data")),
            ("model", "data"),
            ("data", "model"),
        ),
        (("batch",), (("batch", ("data", "model")),), ("data", "model"), (("data", "model"),)),
        (("data", "x"), (), ("data",), ("data", None)),
        (("data", "x"), (), None, ("data", "x")),
    ],
)
def test_rules_decide_in_order_and_no_axis_twice(names, rules, mesh, wanted):
    assert resolve_names(Annotation(names), rules, mesh) == wanted


def test_own_rules_of_a_leaf_come_first():
    own = Annotation(("mlp",), (("mlp", "data"),))
    assert resolve_names(own, (("mlp", "model"),), ("data", "model")) == ("data",)


def test_rules_may_be_those_of_one_port():
    rules = {"mine": {"a": "x"}, "nnx": {"a": ["x", "y"]}}
    assert rules_for(rules, "mine", "nnx") == (("a", "x"),)
    assert rules_for(rules, "other", "nnx") == (("a", ("x", "y")),)
    assert rules_for({"a": "x"}, "other", "nnx") == (("a", "x"),)
