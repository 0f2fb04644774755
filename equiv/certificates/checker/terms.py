"""Terms: expressions over a program's inputs, as a certificate defines them."""

import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from math import prod
from typing import Any, NamedTuple

import numpy as np

Axes = tuple[int, ...]
View = tuple[int, Axes]

NUMBERS = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
MOST_AXES = 5
"""More axes than this are not tried in every order."""


class Refused(Exception):
    """A step or claim does not follow."""


def need(holds: Any, why: str) -> None:
    """Refuse what does not hold."""
    if not holds:
        raise Refused(why)


class Value(NamedTuple):
    """A term through a view: for each axis of the value that of the term, or -1: of size one, or repeated."""

    term: int
    axes: Axes
    shape: Axes
    dtype: str

    def take(self, kept: Sequence[int]) -> "Value":
        """The view of these axes, in this order."""
        return self._replace(axes=tuple(self.axes[a] for a in kept), shape=tuple(self.shape[a] for a in kept))

    def spread(self, shape: Axes) -> "Value":
        """The same value repeated to a shape: a scalar, or along axes of size one."""
        own, axes = self.shape or (1,) * len(shape), self.axes or (-1,) * len(shape)
        need(all(n in (1, size) for n, size in zip(own, shape, strict=True)), f"{own} is not repeated to {shape}")
        return self._replace(axes=axes, shape=shape)

    def as_new(self) -> "Value":
        """The term seen as it is."""
        axes = iter(range(len(self.shape)))
        return self._replace(axes=tuple(-1 if size == 1 else next(axes) for size in self.shape))


class Term(NamedTuple):
    """A definition: what of which terms, its shape without axes of size one, and how many loops it can depend on."""

    kind: str
    data: Any
    of: tuple[View, ...]
    shape: Axes
    dtype: str
    level: int


def to_text(data: Any) -> str:
    """Plain data as a text, since Python takes 1, 1.0 and True for the same."""
    return json.dumps(data, sort_keys=True)


def through(view: Axes, own: Axes) -> Axes:
    """Axes of an operand, given on the axes of a term, as a view of the term shows them."""
    return tuple(-1 if axis < 0 else own[axis] for axis in view)


class Terms:
    """The terms of a proof."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.leaves: dict[str, int] = {}

    def define(self, kind: str, data: Any, of: Any, shape: Any, dtype: str) -> None:
        """Add a definition, which is of earlier terms only."""
        new, parts = len(self.terms), tuple((term, tuple(axes)) for term, axes in of)
        need(all(type(term) is int and 0 <= term < new for term, _ in parts), f"term {new} is not of earlier ones")
        level = max((self.terms[term].level for term, _ in parts), default=0)
        if kind in ("carry", "slice", "stack"):
            need(level <= data[0] - (kind != "stack"), f"term {new} is of a loop inside of its own")
            level = data[0] - (kind == "stack")
        elif kind in ("last", "until"):
            level = self.terms[parts[0][0]].level - 1
        elif kind in ("elementwise", "product", "sum"):
            need(all(self.is_view(*part, shape) for part in parts), f"the operands of term {new} do not fit")
        elif kind == "reshape":
            fits = prod(data) == prod(shape) and all(self.is_view(*part, data) for part in parts)
            need(fits and self.terms[parts[0][0]].dtype == dtype, f"term {new} is no reshape")
        elif kind == "meeting":
            need(all(letter >= 0 for _, letters in parts for letter in letters), f"term {new} has no such axis")
        if not parts:
            self.leaves.setdefault(to_text([kind, data, shape, dtype]), new)
        self.terms.append(Term(kind, data, parts, tuple(shape), dtype, level))

    def is_view(self, term: int, axes: Axes, shape: Sequence[int]) -> bool:
        """Whether these axes show each axis of a term once, in an array of this shape."""
        shown = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis != -1]
        return sorted(shown) == list(enumerate(self.terms[term].shape))

    def leaf(self, kind: str, data: Any, shape: Sequence[int], dtype: str) -> Value:
        """An input or a constant, seen as it is; `number`: one number everywhere, as the hex of its bytes."""
        own = [] if kind == "number" else [size for size in shape if size != 1]
        key = to_text([kind, data, own, dtype])
        need(kind in ("input", "number", "array", "key") and key in self.leaves, f"no term is the {kind} {data}")
        value = Value(self.leaves[key], (-1,) * len(shape), tuple(shape), dtype)
        return value if kind == "number" else value.as_new()

    def number(self, term: int) -> Any:
        """What every element of a term is, where that is known."""
        it = self.terms[term]
        return (
            np.frombuffer(bytes.fromhex(it.data), it.dtype)[0] if it.kind == "number" and it.dtype in NUMBERS else None
        )

    def operands(self, term: int, axes: Axes, labels: Any, shapes: Any, turn: int = 1) -> Iterator[list[View]]:
        """Views of arrays whose reduction or contraction is a view of a term.

        Args:
            term: the term, whose operands have letters for axes: those of the term, and above them what is summed.
            axes: the view.
            labels: for each axis of each array the axis of the result, or -1, -2, ...: what is summed.
            shapes: of the arrays.
            turn: -1: the operands are the other way round.
        """
        it, sizes = self.terms[term], {}
        for own, shape in zip(labels, shapes, strict=True):
            sizes |= dict(zip(own, shape, strict=True))
        bound = sorted({letter for _, letters in it.of for letter in letters if letter >= len(it.shape)})
        long = [label for label in sizes if label < 0 and sizes[label] != 1]
        if it.kind != "meeting" or len(bound) != len(long) or len(bound) > MOST_AXES or len(it.of) != len(labels):
            return
        for order in permutations(bound):
            letter = dict(enumerate(axes)) | dict(zip(long, order, strict=True))
            views: list[View] = []
            for (one, letters), own in zip(it.of[::turn], labels, strict=True):
                named = [letter.get(label, -1) for label in own]
                views.append((one, tuple(letters.index(name) if name in letters else -1 for name in named)))
            if all(self.is_view(*view, shape) for view, shape in zip(views, shapes, strict=True)):
                yield views
