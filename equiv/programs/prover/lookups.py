"""Lookups: gather, scatter and dynamic slices, whose indices are in range under a rewrite of that name."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from equiv.core.grades import IN_RANGE
from equiv.programs.content import digest
from equiv.programs.primitives import SCATTERS
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.digits import see_digits
from equiv.programs.prover.terms import (
    TermView,
    apply_elementwise,
    constant_view,
    dtype_name,
    new_term,
    on_term,
    relevant_params,
)

FIRST_INDEX = {
    "gather": 1,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
    "scatter": 1,
    **dict.fromkeys(SCATTERS, 1),
}
"""Primitive to the place of its first index; of slices all operands from there on are indices."""

MODES = ("mode", "fill_value", "indices_are_sorted", "unique_indices")
"""Parameters that decide nothing where indices are in range, and sorted and unique where they say so."""


def number_lookup(algebra: Algebra, eqn: Any, ins: Sequence[TermView]) -> TermView | None:
    """Number a lookup whose indices are in range; None where the rewrite is not enabled, or it is no lookup."""
    name = eqn.primitive.name
    first = FIRST_INDEX.get(name)
    if first is None or IN_RANGE not in algebra.rules:
        return None
    last = len(ins) if "slice" in name else first + 1
    plain = [_plain_index(algebra, value) if first <= place < last else value for place, value in enumerate(ins)]
    aval = eqn.outvars[0].aval
    key = [name, relevant_params(eqn.params, *MODES), [value.name for value in plain], dtype_name(aval.dtype)]
    algebra.applied.add(IN_RANGE)
    return new_term(digest("lookup", key, aval.shape), aval.shape, aval.dtype)


def _plain_index(algebra: Algebra, value: TermView) -> TermView:
    while (known := algebra.counted.get(value.term)) is not None:
        value = see_digits(value, known)
    return value


def record_index(algebra: Algebra, name: str, ins: Sequence[TermView], result: TermView) -> None:
    """Record what jax makes of an index before it looks anything up: `where(i < 0, .., i)`, or another dtype."""
    if IN_RANGE not in algebra.rules or "int" not in result.dtype or result.constant is not None:
        return
    if name == "convert_element_type" and "int" in ins[0].dtype and result.dtype in WIDE:
        (algebra.counted[result.term],) = on_term(ins[:1], result)
    if name == "select_n" and len(ins) == 3 and _is_negative(ins[0], ins[1]):
        (algebra.counted[result.term],) = on_term(ins[1:2], result)


WIDE = ("int32", "uint32", "int64", "uint64")
"""Dtypes that have every index of an array."""


def _is_negative(value: TermView, index: TermView) -> bool:
    zero = constant_view(np.zeros((), index.dtype), index.shape)
    return value.name == apply_elementwise(("lt", []), [index, zero], index.shape, "bool", commutes=False).name
