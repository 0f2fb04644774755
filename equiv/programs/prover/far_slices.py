"""Where slices are computed from slices of operands, also far from concatenations: if programs slice otherwise."""

from collections import Counter
from typing import Any

from equiv.programs.jaxpr import visit_equations

SLICES = ("dynamic_slice", "gather", "slice", "split")
"""Primitives that take a part of an array."""


def slice_otherwise(left: Any, right: Any) -> bool:
    """Whether two jaxprs take parts of other sizes, or another number of them: one may slice before it computes.

    Of a program that has no jaxpr (None) nothing is known.
    """
    return left is not None and right is not None and _count_slices(left) != _count_slices(right)


def _count_slices(jaxpr: Any) -> Counter[Any]:
    return Counter(
        (eqn.primitive.name, eqn.invars[0].aval.shape, *(one.aval.shape for one in eqn.outvars))
        for _, eqn in visit_equations(jaxpr)
        if eqn.primitive.name in SLICES
    )
