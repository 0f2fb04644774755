"""Terms: expressions over a program's inputs, as a certificate defines them, and views of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

Index = tuple[tuple[int, int, int], ...]
"""A number by its digits, the outermost first: each `index of an axis // divisor % size`, as (axis, divisor, size).

Axes below zero are the turns of the loops around, the outermost -1.
"""
View = tuple[Index, ...]
"""For each axis of what is seen its index, made from the axes of an array: so `array[i] = seen[view(i)]`."""


class Refused(Exception):
    """A step or claim does not follow."""


def need(holds: Any, why: str) -> None:
    """Refuse what does not hold."""
    if not holds:
        raise Refused(why)


class Value(NamedTuple):
    """A value of a program: a term through a view."""

    term: int
    view: View
    shape: tuple[int, ...]
    dtype: str


class Term(NamedTuple):
    """A definition: what of which views of terms; its shape without axes of size one."""

    kind: str
    data: Any
    of: tuple[tuple[int, View], ...]
    shape: tuple[int, ...]
    dtype: str


def to_text(data: Any) -> str:
    """Plain data as a text, since Python takes 1, 1.0 and True for the same."""
    return json.dumps(data, sort_keys=True)


def whole(axis: int, size: int) -> Index:
    """The index of an axis itself."""
    return ((axis, 1, size),) if size != 1 else ()


def as_new(shape: Sequence[int]) -> View:
    """The view of a term as it is, in an array of a shape."""
    return tuple(whole(axis, size) for axis, size in enumerate(shape) if size != 1)


def read_view(data: Any) -> View:
    """A view as a certificate has it."""
    found = tuple(tuple((axis, divisor, size) for axis, divisor, size in one) for one in data)
    need(all(type(n) is int for one in found for digit in one for n in digit), f"{data} is no view")
    return found


def cut(index: Index, low: int, size: int) -> Index:
    """The digits of `index // low % size`, if they end there."""
    if (low, size) == (1, prod(own for _, _, own in index)):
        return index
    found: list[tuple[int, int, int]] = []
    for axis, divisor, own in reversed(index):
        skipped = min(low, own)
        taken = min(own // skipped, size)
        need(0 == low % skipped == own % skipped == own // skipped % taken == size % taken, "digits do not fit")
        found.insert(0, (axis, divisor * skipped, taken))
        low, size = low // skipped, size // taken
    return tuple(found)


def through(view: View, env: Mapping[int, Index]) -> View:
    """A view in which axes are replaced by other numbers, but for turns of loops; digits side by side are joined."""
    views: list[Index] = []
    for one in view:
        found: list[tuple[int, int, int]] = []
        for axis, divisor, size in one:
            need(axis < 0 or axis in env, f"there is no axis {axis}")
            for new, low, own in cut(env[axis], divisor, size) if axis in env else [(axis, divisor, size)]:
                joins = found and found[-1][:2] == (new, low * own)
                found += [(new, low, own * (found.pop()[2] if joins else 1))] if own != 1 else []
        views.append(tuple(found))
    return tuple(views)


class Terms:
    """The terms of a proof."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.leaves: dict[str, int] = {}
        self.kept: dict[Any, Any] = {}  # of rules, between steps

    def define(self, kind: str, data: Any, of: Any, shape: Any, dtype: str) -> None:
        """Add a definition, which is of earlier terms only."""
        parts = tuple((term, read_view(view)) for term, view in of)
        need(all(self.is_view(*part, 0) for part in parts), f"term {len(self.terms)} is of what is no view")
        self.leaves.setdefault(to_text([kind, data, shape, dtype]), len(self.terms))
        self.terms.append(Term(kind, data, parts, tuple(shape), dtype))

    def is_view(self, term: Any, view: View, lowest: int) -> bool:
        """Whether a view has for each axis of a known term an index of its size, from axes that there are."""
        need(type(term) is int and 0 <= term < len(self.terms), f"there is no term {term}")
        sizes = tuple(prod(size for _, _, size in one) for one in view)
        return sizes == self.terms[term].shape and all(axis >= lowest for one in view for axis, _, _ in one)

    def leaf(self, kind: str, data: Any, shape: Sequence[int], dtype: str) -> Value:
        """An input or a constant, seen as it is; `number`: one number everywhere, as the hex of its bytes."""
        own = [] if kind == "number" else [size for size in shape if size != 1]
        key = to_text([kind, data, own, dtype])
        need(kind in ("input", "number", "array", "key") and key in self.leaves, f"no term is the {kind} {data}")
        return Value(self.leaves[key], () if kind == "number" else as_new(shape), tuple(shape), dtype)

    def number(self, term: int) -> Any:
        """What every element of a term is; None where that is not known."""
        it = self.terms[term]
        known = it.kind == "number" and it.dtype != "bfloat16"
        return np.frombuffer(bytes.fromhex(it.data), it.dtype)[0] if known else None

    def are(self, of: Iterable[tuple[int, View]], env: Mapping[int, Index], values: Sequence[Value]) -> bool:
        """Whether views, with their axes replaced, are those of values."""
        return [(term, through(view, env)) for term, view in of] == [one[:2] for one in values]
