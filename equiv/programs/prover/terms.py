"""Terms: canonical names of computations, so that equal values get one name however they are written.

A value is a term seen through a view (`TermView`). The term's array has no unit axes; the view gives for each axis of
the value the axis of the term, or None where it is broadcast. Reshapes, broadcasts and transposes change the view and
leave the term alone; where a reshape splits or merges axes, the view has digits of them (`digits.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from equiv.programs.content import Content, ContentReader, digest, encode, is_key, read_key


@dataclass(frozen=True)
class TermView:
    """A term seen through a view.

    Attributes:
        term: name of the term: equal names, equal arrays.
        axes: for every axis of the value the axis of the term, or None where it is broadcast or of size one; or the
            digits of the term's axes that a reshape has put there.
        shape: shape of the value.
        dtype: dtype name.
        constant: the number, if every element is the same known number.
    """

    term: str
    axes: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: str
    constant: Any = None

    @property
    def name(self) -> str:
        """The value's own name: term and view."""
        return digest("view", self.term, self.axes, self.shape, self.dtype)

    @property
    def plain(self) -> bool:
        """Whether the view only adds unit axes: nothing broadcast, permuted or split."""
        used = [axis for axis in self.axes if axis is not None]
        repeats = any(axis is None and size != 1 for axis, size in zip(self.axes, self.shape, strict=True))
        return not repeats and not any(isinstance(axis, tuple) for axis in used) and used == sorted(used)


@cache
def dtype_name(dtype: Any) -> str:
    """A dtype's name; cached, since it is asked for so often."""
    return dtype if isinstance(dtype, str) else dtype.name


def new_term(name: str, shape: Sequence[int], dtype: Any) -> TermView:
    """Make a new term, seen through the identity view."""
    numbers = iter(range(len(shape)))
    axes = tuple(None if size == 1 else next(numbers) for size in shape)
    return TermView(name, axes, tuple(shape), dtype_name(dtype))


def literal_view(array: Any) -> TermView:
    """Make the view of a constant array; if all elements are equal it is a broadcast scalar."""
    if is_key(array):
        return new_term(digest(read_key(array)), array.shape, array.dtype)
    numbers = np.asarray(array)
    first = numbers.reshape(-1)[0] if numbers.size else None
    # Bytes, not `==`: zero and minus zero differ, and a NaN is equal to itself.
    if first is not None and (not numbers.ndim or numbers.tobytes() == np.full_like(numbers, first).tobytes()):
        term = digest("number", dtype_name(numbers.dtype), first.tobytes())
        return TermView(term, (None,) * numbers.ndim, numbers.shape, dtype_name(numbers.dtype), first)
    # A term has no unit axes, so that a row and a column of the same numbers are one term in two views.
    squeezed = np.ascontiguousarray(numbers.squeeze())
    return new_term(
        digest("array", dtype_name(numbers.dtype), squeezed.shape, squeezed.tobytes()), numbers.shape, numbers.dtype
    )


def constant_view(value: Any, shape: Sequence[int]) -> TermView:
    """Make the view of a number broadcast to a shape."""
    known = literal_view(np.asarray(value))
    return TermView(known.term, (None,) * len(shape), tuple(shape), known.dtype, known.constant)


def broadcast_term(value: TermView, shape: Sequence[int], places: Sequence[int]) -> TermView:
    """`broadcast_in_dim`."""
    axes: list[Any] = [None] * len(shape)
    for axis, place in enumerate(places):
        # An axis of size one that is repeated is no axis of the term: it stays None.
        if value.shape[axis] == shape[place]:
            axes[place] = value.axes[axis]
    return TermView(value.term, tuple(axes), tuple(shape), value.dtype, value.constant)


def transpose_term(value: TermView, order: Sequence[int]) -> TermView:
    """`transpose`."""
    shape = tuple(value.shape[axis] for axis in order)
    return TermView(value.term, tuple(value.axes[axis] for axis in order), shape, value.dtype, value.constant)


def reshape_term(value: TermView, shape: Sequence[int]) -> TermView | None:
    """`reshape`, if only unit axes are added or removed; else None."""
    shape = tuple(shape)
    if value.constant is not None:
        return TermView(value.term, (None,) * len(shape), shape, value.dtype, value.constant)
    # A repeated axis (None) can be kept as well: the elements stand in the same order before and after.
    kept = [axis for axis, size in zip(value.axes, value.shape, strict=True) if size != 1]
    if [size for size in value.shape if size != 1] != [size for size in shape if size != 1]:
        return None
    left = iter(kept)
    return TermView(value.term, tuple(None if size == 1 else next(left) for size in shape), shape, value.dtype)


def reshaped_term(value: TermView, shape: Sequence[int]) -> TermView:
    """A reshape that is no view: a new term."""
    return new_term(digest("reshape", *_reshape_key(value), [size for size in shape if size != 1]), shape, value.dtype)


def _reshape_key(value: TermView) -> tuple[Any, ...]:
    """What the name of a reshaped value depends on; unit axes do not count."""
    view = [(axis, size) for axis, size in zip(value.axes, value.shape, strict=True) if size != 1]
    return value.term, view, value.dtype


def apply_elementwise(
    operation: Any,
    operands: Sequence[TermView],
    shape: Sequence[int],
    dtype: Any,
    commutes: bool,
    tags: Sequence[Any] = (),
) -> TermView:
    """Make the term of an elementwise operation, on the axes that some operand really has, in a canonical order.

    Args:
        operation: name and parameters.
        operands: each of the result's rank, or a scalar.
        shape: of the result.
        dtype: of the result.
        commutes: whether the order of the operands does not matter.
        tags: one value per operand that is part of the operation, e.g. its power in a product.
    """
    rank = len(shape)
    # Where operands do not commute, their place is part of what they are.
    marks = list(tags) or ([""] * len(operands) if commutes else list(range(len(operands))))
    views = [value.axes if value.shape else (None,) * rank for value in operands]
    columns = list(zip(*views, strict=True))
    axes = [axis for axis, column in enumerate(columns) if column.count(None) < len(column)]

    # Sorted, so that the order in which operands are written does not decide the order of axes.
    # Axes of equal signature keep the program's order: at worst an equality is missed.
    def signature(axis: int) -> list[bytes]:
        given = zip(operands, columns[axis], marks, strict=True)
        return sorted([encode(value.term, mark, own) for value, own, mark in given])

    # The order of the result's axes is a view: (a + b).T and a.T + b.T are one term.
    if len(axes) > 1:
        axes.sort(key=signature)
    names = [
        digest(value.term, value.dtype, [view[axis] for axis in axes], mark)
        for value, view, mark in zip(operands, views, marks, strict=True)
    ]
    own_dtype = dtype_name(dtype)
    term = digest("elementwise", operation, sorted(names) if commutes else names, own_dtype)
    place = {axis: index for index, axis in enumerate(axes)}
    return TermView(term, tuple(map(place.get, range(rank))), tuple(shape), own_dtype)


def is_infinite(value: TermView) -> bool:
    """Whether a value is known not to be finite, which all rewrites ask of it: `-inf * m` is no `where(m, -inf, 0)`."""
    return value.constant is not None and not np.isfinite(value.constant)


def place_axes(value: TermView, places: Sequence[int | None], shape: Sequence[int]) -> TermView:
    """View a value in a shape, for every axis of which its own axis is given; None: it is repeated there."""
    axes = tuple([None if place is None or not value.axes else value.axes[place] for place in places])
    return TermView(value.term, axes, tuple(shape), value.dtype, value.constant)


def on_term(operands: Sequence[TermView], result: TermView) -> list[TermView]:
    """The operands of an elementwise operation viewed on the axes of the result's term."""
    where = {axis: place for place, axis in enumerate(result.axes) if axis is not None}
    places = [where[axis] for axis in range(len(where))]
    shape = tuple(result.shape[place] for place in places)
    return [
        TermView(
            value.term,
            tuple([value.axes[place] for place in places] if value.shape else [None] * len(places)),
            shape,
            value.dtype,
            value.constant,
        )
        for value in operands
    ]


def seen_through(view: TermView, own: TermView) -> TermView:
    """The inverse of `on_term`: the operand viewed through a view of that term."""
    axes = tuple([None if axis is None else own.axes[axis] for axis in view.axes])
    return TermView(own.term, axes, view.shape, own.dtype, own.constant)


IGNORED_PARAMS = frozenset(("sharding", "out_sharding", "weak_type", "ctx_mesh", "debug_info", "computation"))
"""Parameters of jax's primitives that do not affect the value, only where it is computed.

`computation` is the function of a `reduce`, which its jaxpr says as well.
"""


def relevant_params(params: dict[str, Any], *without: str) -> list[tuple[str, Content]]:
    """Read the parameters of one of jax's primitives, without those that do not affect the value."""
    kept = {key: value for key, value in params.items() if key not in IGNORED_PARAMS and key not in without}
    return ContentReader().read_parameters(kept)
