"""Layouts of a case's own: each is tried on numbers, and one that does not bring a leaf back is refused in words."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from infer_ports import pure

from equiv.backends import registry
from equiv.backends.leaf_table import map_port
from equiv.core.layers import parameter
from equiv.core.layout_trial import changes_values, inversion_problem, is_own_layout
from equiv.core.layouts import Chain, Flip, Scale, Shift, SwapAxes
from equiv.errors import CaseError


@dataclass(frozen=True)
class Written:
    """A layout as a user writes it, of two functions."""

    there: object = field(default=lambda array: array)
    back: object = field(default=lambda array: array)

    def canonical_shape(self, shape):
        return shape

    def to_canonical(self, array):
        return self.there(array)

    def to_native(self, array, shape):
        return self.back(array)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        (Written(), ""),
        (Written(np.sinh, np.arcsinh), ""),
        (Written(np.square, np.sqrt), r"comes back as"),
        (Written(lambda array: array * 2), r"comes back as"),
        (Written(lambda array: array[:1]), r"canonical_shape says \(3, 4\), and to_canonical gives \(1, 4\)"),
        (Written(back=lambda array: array.astype("float64")), r"to_native gives float64\[3, 4\] for float32\[3, 4\]"),
        (Written(lambda array: array.absent()), r"it raised AttributeError: .* no attribute 'absent'"),
    ],
)
def test_a_layout_that_brings_no_leaf_back_is_refused(layout, problem):
    """With the leaf, its shape, and what becomes of a number."""
    port = pure("haiku", lambda p, x: x, **{"a/w": (3, 4)})
    row = parameter("a", haiku="a/w", layouts={"haiku": {"": layout}})
    library = registry.load_library("haiku")
    assert is_own_layout(layout)
    if not problem:
        assert map_port((row,), port, library)["a"].spec.shape == (3, 4)
        return
    with pytest.raises(CaseError, match=rf"of a is not invertible on float32\[3, 4\]: .*{problem}.* A layout has to"):
        map_port((row,), port, library)


@pytest.mark.parametrize(
    ("layout", "changed"),
    [
        (Chain((Flip((-1,)), SwapAxes())), False),
        (Shift(1.0), False),
        (Scale(-1.0), False),
        (Scale(2.0), True),
        (Written(np.sinh, np.arcsinh), True),
    ],
    ids=str,
)
def test_training_depends_on_layouts_that_change_sizes_of_values(layout, changed):
    """Not on order or sign; a number that is added is none of an optimizer's."""
    assert changes_values(layout, (3, 4)) is changed
    assert inversion_problem(layout, (3, 4)) == ""
