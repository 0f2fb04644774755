"""Lookups: gather, scatter and dynamic slices, whose indices are in range: known to be, or by a rewrite of that name.

Known are the ranges of batch entries with a bound (`int32[8]:10`), of constants, and of what counts positions (`iota`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from equiv.core.grades import IN_RANGE
from equiv.programs.content import digest
from equiv.programs.primitives import SCATTERS
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.digits import see_digits
from equiv.programs.prover.one_hot import known_range
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
    """Number a lookup whose indices are in range; None where that is not known nor assumed, or it is no lookup."""
    name = eqn.primitive.name
    first = FIRST_INDEX.get(name)
    if first is None:
        return None
    last = len(ins) if "slice" in name else first + 1
    plain = [plain_index(algebra, value) if first <= place < last else value for place, value in enumerate(ins)]
    known = _is_in_range(algebra, eqn, plain, first, last)
    if not known and IN_RANGE not in algebra.rules:
        return None
    aval = eqn.outvars[0].aval
    key = [name, relevant_params(eqn.params, *MODES), [value.name for value in plain], dtype_name(aval.dtype)]
    if not known:
        algebra.applied.add(IN_RANGE)
    return new_term(digest("lookup", key, aval.shape), aval.shape, aval.dtype)


def _is_in_range(algebra: Algebra, eqn: Any, ins: Sequence[TermView], first: int, last: int) -> bool:
    """Whether every index is known to be in range, so that no mode decides anything."""
    params, shape = eqn.params, ins[0].shape
    # What a program says of its indices may be wrong, and is not known.
    if params.get("indices_are_sorted") or params.get("unique_indices"):
        return False
    if "slice" in eqn.primitive.name:
        sizes = params["slice_sizes"] if "slice_sizes" in params else ins[1].shape
        axes = range(len(shape))
    else:
        numbers = params["dimension_numbers"]
        is_gather = eqn.primitive.name == "gather"
        axes = numbers.start_index_map if is_gather else numbers.scatter_dims_to_operand_dims
        if len(axes) != 1 or not (is_gather or axes[0] in numbers.inserted_window_dims):
            return False
        sizes = params["slice_sizes"] if is_gather else (1,) * len(shape)
    ranges = [known_range(algebra, value) for value in ins[first:last]]
    limits = [shape[axis] - sizes[axis] for axis in axes]
    return len(ranges) == len(limits) and all(
        known is not None and known[0] >= 0 and known[1] <= limit for known, limit in zip(ranges, limits, strict=True)
    )


def plain_index(algebra: Algebra, value: TermView) -> TermView:
    """An index as it was before jax counted it from the end, or gave it another dtype; see `record_index`."""
    while (known := algebra.counted.get(value.term)) is not None:
        value = see_digits(value, known)
    return value


def record_index(algebra: Algebra, name: str, ins: Sequence[TermView], result: TermView) -> None:
    """Record what jax makes of an index before it looks anything up: `where(i < 0, .., i)`, or another dtype."""
    if "int" not in result.dtype or result.constant is not None:
        return
    place = {"convert_element_type": 0, "select_n": 1}.get(name)
    known = None if place is None or len(ins) <= place else known_range(algebra, plain_index(algebra, ins[place]))
    # A number that is known to be an index is the same in another dtype, and not counted from the end.
    if IN_RANGE not in algebra.rules and (known is None or known[0] < 0 or known[1] > LARGEST_INDEX):
        return
    if name == "convert_element_type" and "int" in ins[0].dtype and result.dtype in WIDE:
        (algebra.counted[result.term],) = on_term(ins[:1], result)
    if name == "select_n" and len(ins) == 3 and _is_negative(ins[0], ins[1]):
        (algebra.counted[result.term],) = on_term(ins[1:2], result)


LARGEST_INDEX = 2**31 - 1
"""The largest number of the narrowest of `WIDE`."""

WIDE = ("int32", "uint32", "int64", "uint64")
"""Dtypes that have every index of an array."""


def _is_negative(value: TermView, index: TermView) -> bool:
    zero = constant_view(np.zeros((), index.dtype), index.shape)
    return value.name == apply_elementwise(("lt", []), [index, zero], index.shape, "bool", commutes=False).name
