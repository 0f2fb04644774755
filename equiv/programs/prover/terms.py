"""Terms: what a value of a program is made of, so that equal values get one name whatever way they are written.

A value is a term seen through a view. The term's array has no unit axes; the view says which axis of the term each
axis of the value is, or that it is repeated (`None`). Reshapes that only add or drop unit axes, broadcasts and
transposes change the view and leave the term alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Value:
    """A term seen through a view.

    Attributes:
        term: name of the term: equal names, equal arrays.
        axes: for every axis of the value the axis of the term, or None where it is repeated or of size one.
        shape: shape of the value.
        dtype: dtype name.
        constant: the number, where every element is the same known one.
    """

    term: str
    axes: tuple[int | None, ...]
    shape: tuple[int, ...]
    dtype: str
    constant: Any = None

    @property
    def name(self) -> str:
        """The value's own name: term and view."""
        return digest("view", self.term, self.axes, self.shape, self.dtype)

    @property
    def plain(self) -> bool:
        """Whether the view only drops unit axes: nothing repeated, nothing permuted."""
        used = [axis for axis in self.axes if axis is not None]
        repeats = any(axis is None and size != 1 for axis, size in zip(self.axes, self.shape, strict=True))
        return not repeats and used == sorted(used)


@cache
def dtype_name(dtype: Any) -> str:
    """A dtype's name; asked for so often that it is worth keeping."""
    return str(dtype)


def digest(*parts: Any) -> str:
    """A name for a combination of names."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def atom(name: str, shape: Sequence[int], dtype: Any) -> Value:
    """A value that is its own term."""
    numbers = iter(range(len(shape)))
    axes = tuple(None if size == 1 else next(numbers) for size in shape)
    return Value(name, axes, tuple(shape), dtype_name(dtype))


def literal(array: Any) -> Value:
    """A constant; one number everywhere is a scalar seen through a broadcast."""
    if "key<" in dtype_name(getattr(array, "dtype", None)):
        return atom(digest("key", id(array)), array.shape, array.dtype)
    numbers = np.asarray(array)
    first = numbers.reshape(-1)[0] if numbers.size else None
    if first is not None and (not numbers.ndim or numbers.tobytes() == np.full_like(numbers, first).tobytes()):
        term = digest("number", dtype_name(numbers.dtype), first.tobytes())
        return Value(term, (None,) * numbers.ndim, numbers.shape, dtype_name(numbers.dtype), first)
    squeezed = np.ascontiguousarray(numbers.squeeze())
    return atom(
        digest("array", dtype_name(numbers.dtype), squeezed.shape, squeezed.tobytes()), numbers.shape, numbers.dtype
    )


def number(value: Any, shape: Sequence[int]) -> Value:
    """A known number, repeated to a shape."""
    known = literal(np.asarray(value))
    return Value(known.term, (None,) * len(shape), tuple(shape), known.dtype, known.constant)


def broadcast(value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
    """`broadcast_in_dim`."""
    axes: list[int | None] = [None] * len(shape)
    for axis, place in enumerate(places):
        if value.shape[axis] == shape[place]:
            axes[place] = value.axes[axis]
    return Value(value.term, tuple(axes), tuple(shape), value.dtype, value.constant)


def permute(value: Value, order: Sequence[int]) -> Value:
    """`transpose`."""
    shape = tuple(value.shape[axis] for axis in order)
    return Value(value.term, tuple(value.axes[axis] for axis in order), shape, value.dtype, value.constant)


def reshape(value: Value, shape: Sequence[int]) -> Value:
    """A reshape: a view where only unit axes come or go, else a term of its own."""
    shape = tuple(shape)
    if value.constant is not None:
        return Value(value.term, (None,) * len(shape), shape, value.dtype, value.constant)
    kept = [axis for axis, size in zip(value.axes, value.shape, strict=True) if size != 1]
    if [size for size in value.shape if size != 1] == [size for size in shape if size != 1]:
        left = iter(kept)
        return Value(value.term, tuple(None if size == 1 else next(left) for size in shape), shape, value.dtype)
    return atom(digest("reshape", *_flat(value), [size for size in shape if size != 1]), shape, value.dtype)


def _flat(value: Value) -> tuple[Any, ...]:
    """What a reshape of a value depends on: unit axes do not count."""
    view = [(axis, size) for axis, size in zip(value.axes, value.shape, strict=True) if size != 1]
    return value.term, view, value.dtype


def elementwise(
    operation: Any,
    operands: Sequence[Value],
    shape: Sequence[int],
    dtype: Any,
    commutes: bool,
    tags: Sequence[Any] = (),
) -> Value:
    """An elementwise operation: its term lives on the axes that some operand really has, in an order of its own.

    Args:
        operation: name and parameters.
        operands: each of the result's rank, or a scalar.
        shape: of the result.
        dtype: of the result.
        commutes: whether the order of the operands counts.
        tags: something beside each operand that is part of the operation, e.g. its power in a product.
    """
    rank = len(shape)
    marks = list(tags) or ([""] * len(operands) if commutes else list(range(len(operands))))
    views = [value.axes if value.shape else (None,) * rank for value in operands]
    axes = [axis for axis in range(rank) if any(view[axis] is not None for view in views)]

    def signature(axis: int) -> str:
        rows = zip(operands, views, marks, strict=True)
        return repr(sorted((value.term, repr(mark), repr(view[axis])) for value, view, mark in rows))

    # The order of the result's axes is a view: (a + b).T and a.T + b.T are one term.
    if len(axes) > 1:
        axes.sort(key=signature)
    names = [
        digest(value.term, value.dtype, [view[axis] for axis in axes], mark)
        for value, view, mark in zip(operands, views, marks, strict=True)
    ]
    term = digest("elementwise", operation, sorted(names) if commutes else names, dtype_name(dtype))
    place = {axis: index for index, axis in enumerate(axes)}
    return Value(term, tuple(place.get(axis) for axis in range(rank)), tuple(shape), dtype_name(dtype))


def on_term(operand: Value, result: Value) -> Value:
    """An operand of an elementwise operation as seen on the axes of the result's term."""
    places = [result.axes.index(axis) for axis in range(sum(axis is not None for axis in result.axes))]
    shape = tuple(result.shape[place] for place in places)
    axes = tuple(operand.axes[place] if operand.shape else None for place in places)
    return Value(operand.term, axes, shape, operand.dtype, operand.constant)


def seen_through(view: Value, own: Value) -> Value:
    """What `on_term` gave, as seen through a view of that term."""
    axes = tuple(None if axis is None else own.axes[axis] for axis in view.axes)
    return Value(own.term, axes, view.shape, own.dtype, own.constant)


IGNORED = frozenset(("sharding", "out_sharding", "weak_type", "name", "accuracy", "ctx_mesh", "debug_info"))
"""Parameters that say where or how a value is made, not what it is."""


def attributes(params: dict[str, Any], *without: str) -> list[tuple[str, str]]:
    """An equation's parameters, without those that do not change what it computes."""
    return sorted((key, str(value)) for key, value in params.items() if key not in IGNORED and key not in without)
