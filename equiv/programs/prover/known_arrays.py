"""Arrays of whole numbers and truth values that depend on no input: positions, and the masks that are made of them.

A mask is named by its content, however it was made: `jnp.tril(ones)` and a comparison of positions are one mask.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from equiv.programs.numpy_rules import MOVE_RULES
from equiv.programs.primitives import COMPARISONS, NUMPY_FUNCTIONS
from equiv.programs.prover.terms import TermView, dtype_name, literal_view, new_term, seen_through

MOST_ELEMENTS = 2**24
"""Size above which an array is not computed: a causal mask of 4096 positions has as many elements."""

Arrays = dict[str, np.ndarray]
"""Term to its array, on the term's own axes."""


def record_array(arrays: Arrays, eqn: Any, ins: Sequence[TermView], result: TermView) -> None:
    """Record the array of an equation's result, if the arrays of all operands are known and numpy computes the same."""
    # Almost always an operand has no known array, which is seen first.
    unknown = [one for one in ins if one.constant is None and one.term not in arrays]
    if unknown or result.dtype not in KNOWN_DTYPES:
        return
    aval = eqn.outvars[0].aval
    if result.constant is not None or result.term in arrays:
        return
    if aval.size > MOST_ELEMENTS or not all(isinstance(axis, int | None) for axis in result.axes):
        return
    given = [known_array(arrays, value) for value in ins]
    if any(array is None for array in given):
        return
    array = _compute(eqn, given)
    if array is not None and array.dtype == aval.dtype and array.shape == tuple(aval.shape):
        arrays[result.term] = on_own_axes(result, array)


def known_array(arrays: Mapping[str, np.ndarray], value: TermView) -> np.ndarray | None:
    """The array of a value, of its shape; None where it is not known."""
    if value.dtype not in KNOWN_DTYPES:
        return None
    if value.constant is not None:
        return np.broadcast_to(np.asarray(value.constant, value.dtype), value.shape)
    own = arrays.get(value.term)
    if own is None or not all(isinstance(axis, int | None) for axis in value.axes):
        return None
    used = [axis for axis in value.axes if axis is not None]
    if sorted(used) != list(range(own.ndim)):
        return None
    rows = np.expand_dims(own.transpose(used), [place for place, axis in enumerate(value.axes) if axis is None])
    return np.broadcast_to(rows, value.shape)


def name_by_content(arrays: Arrays, contents: dict[str, TermView], value: TermView) -> TermView:
    """A mask by its content, if its array is known; any other value as it is.

    Args:
        arrays: the known arrays; gets that of the new term.
        contents: term to its view of the term that is named by content; gets what is missing.
        value: any value.
    """
    array = arrays.get(value.term) if value.dtype == "bool" else None
    if array is None or not array.size or not all(isinstance(axis, int | None) for axis in value.axes):
        return value
    if value.term not in contents:
        # An axis along which nothing changes is none, as in every other term.
        repeated = [axis for axis in range(array.ndim) if (array == array.take([0], axis)).all()]
        own = literal_view(array[tuple(slice(0, 1) if axis in repeated else slice(None) for axis in range(array.ndim))])
        contents[value.term] = own
        if own.constant is None:
            left = _leave_out(array, repeated)
            arrays.setdefault(own.term, left)
            contents.setdefault(own.term, new_term(own.term, left.shape, left.dtype))
    return seen_through(value, contents[value.term])


def _leave_out(array: np.ndarray, repeated: Sequence[int]) -> np.ndarray:
    """An array without axes along which it does not change."""
    return np.ascontiguousarray(array[tuple(0 if axis in repeated else slice(None) for axis in range(array.ndim))])


def on_own_axes(result: TermView, array: np.ndarray) -> np.ndarray:
    """The array of a term, from that of a value: without repeated axes, in the term's own order."""
    places = sorted((axis, place) for place, axis in enumerate(result.axes) if axis is not None)
    first = array[tuple(slice(None) if axis is not None else 0 for axis in result.axes)]
    left = sorted(place for _, place in places)
    return np.ascontiguousarray(first.transpose([left.index(place) for _, place in places]))


EXACT_DTYPES = frozenset(["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
"""Dtypes whose operations numpy does exactly as XLA."""

KNOWN_DTYPES = EXACT_DTYPES | frozenset(("float16", "bfloat16", "float32", "float64"))
"""Dtypes of masks: Flax makes them of floats, which are moved and compared only."""


def _compute(eqn: Any, ins: Sequence[Any]) -> np.ndarray | None:
    """The result of one equation in numpy; None for an operation that is not among those masks are made of."""
    name = eqn.primitive.name
    if name in MOVE_RULES:
        return MOVE_RULES[name](eqn, *ins)
    if name in MADE:
        return MADE[name](eqn.params, eqn.outvars[0].aval, ins)
    exact = name in COMPARISONS or all(one.dtype.name in EXACT_DTYPES for one in ins)
    if not exact or name not in NUMPY_FUNCTIONS or name in ("div", "sqrt"):
        return None
    with np.errstate(over="ignore"):  # whole numbers wrap
        return np.asarray(NUMPY_FUNCTIONS[name](*ins))


def _iota(params: Mapping[str, Any], aval: Any, ins: Sequence[np.ndarray]) -> np.ndarray | None:
    axis = params["dimension"]
    if dtype_name(aval.dtype) not in EXACT_DTYPES or aval.shape[axis] > np.iinfo(aval.dtype).max:
        return None
    numbers = np.arange(aval.shape[axis]).astype(dtype_name(aval.dtype))
    return np.broadcast_to(np.expand_dims(numbers, [one for one in range(len(aval.shape)) if one != axis]), aval.shape)


def _convert(params: Mapping[str, Any], aval: Any, ins: Sequence[np.ndarray]) -> np.ndarray | None:
    exact = {ins[0].dtype.name, dtype_name(aval.dtype)} <= EXACT_DTYPES
    # Zero and one are the same in every dtype.
    return ins[0].astype(aval.dtype) if exact or ins[0].dtype == bool else None


def _select(params: Mapping[str, Any], aval: Any, ins: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.where(ins[0], ins[2], ins[1]) if len(ins) == 3 and ins[0].dtype == bool else None


MADE: dict[str, Callable[[Mapping[str, Any], Any, Sequence[np.ndarray]], np.ndarray | None]] = {
    "iota": _iota,
    "convert_element_type": _convert,
    "select_n": _select,
}
"""Primitive to its result where numpy is exact, from parameters, the result's shape and dtype, and operands."""
