"""Terms: expressions over a program's inputs, as a certificate defines them, and their sums and products."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from math import isfinite, prod
from typing import Any, NamedTuple

import numpy as np

Axes = tuple[int, ...]
View = tuple[int, Axes]
Poly = dict[tuple[tuple[int, float], ...], float]
"""Monomials, which are atoms with powers, to coefficients."""

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


def add(weighted: Iterable[tuple[Poly, float]]) -> Poly:
    """A weighted sum. What cancels may leave the rounding of its own coefficients."""
    total, size = Poly(), Poly()
    for poly, weight in weighted:
        for one, number in poly.items():
            total[one] = total.get(one, 0.0) + weight * number
            size[one] = max(size.get(one, 0.0), abs(weight * number))
    return {one: number for one, number in total.items() if abs(number) > 1e-14 * size[one]}


def ratio(one: Poly, other: Poly) -> float:
    """The number that turns the second into the first, to twelve digits; 0: there is none."""
    if one.keys() != other.keys():
        return 0.0
    scale = next((one[key] / other[key] for key in one), 0.0)
    return scale if all(abs(one[key] - scale * other[key]) <= 1e-12 * abs(one[key]) for key in one) else 0.0


def same(one: Poly, other: Poly) -> bool:
    """Whether two sums are equal to twelve digits of every coefficient."""
    return one == other or abs(ratio(one, other) - 1) <= 1e-12


class Terms:
    """The terms of a proof, and what the sums and products among them consist of."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.leaves: dict[str, int] = {}
        self.atoms: dict[Any, int] = {}
        self.inside: dict[int, Poly] = {}
        self.polys: dict[View, Poly] = {}

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

    def parts(self, term: int, axes: Axes) -> list[tuple[int, Axes, float]]:
        """Parts of a sum or product as a view of it shows them, with their coefficients or powers."""
        it = self.terms[term]
        return [(one, through(axes, own), weight) for (one, own), weight in zip(it.of, it.data[1], strict=True)]

    def poly(self, term: int, axes: Axes) -> Poly:
        """A view of a term as a sum of products."""
        if (term, axes) not in self.polys:
            it, number = self.terms[term], self.number(term)
            if it.kind in ("sum", "product"):
                parts = [(self.poly(one, view), weight) for one, view, weight in self.parts(term, axes)]
                found = add([({(): 1.0}, it.data[0]), *parts]) if it.kind == "sum" else self.multiply(it.data[0], parts)
            elif number is not None and it.dtype != "bool" and isfinite(number):
                found = {(): float(number)} if number else {}
            else:
                negated = it.dtype == "bool" and it.data == ["not", "{}"]
                inner = ("not", it.of[0][0], through(axes, it.of[0][1])) if negated else ("term", term, axes)
                found = {((self.atom((*inner, it.dtype == "bool")), 1.0),): 1.0}
            self.polys[term, axes] = found
        return self.polys[term, axes]

    def atom(self, key: Any) -> int:
        """The number of what is not looked into, negative for a truth value, whose powers are itself."""
        number = self.atoms.setdefault(key, len(self.atoms) + 1)
        return -number if key[-1] is True else number

    def multiply(self, scale: float, given: Iterable[tuple[Poly, float]]) -> Poly:
        """A number times powers of sums. Sums are not multiplied out, but as factors have a leading one."""
        powers: dict[int, float] = {}
        for poly, power in given:
            factor, atoms = self._power(poly, power)
            scale *= factor
            for atom, exponent in atoms:
                power = powers.get(atom, 0.0) + exponent
                powers[atom] = 1.0 if atom < 0 < power else power
        product = tuple(sorted((atom, power) for atom, power in powers.items() if power))
        if len(product) == 1 and product[0][1] == 1 and product[0][0] in self.inside:
            return {one: scale * number for one, number in self.inside[product[0][0]].items()}
        return {product: scale} if scale else {}

    def _power(self, poly: Poly, power: float) -> tuple[float, list[tuple[int, float]]]:
        """A power of a sum: a number, and atoms with powers. Only what is positive comes out of a root."""
        (one, number), whole = next(iter(poly.items()), ((), 0.0)), float(power).is_integer()
        if len(poly) < 2 and (power > 0 or number) and (whole or (number >= 0 and not one)):
            return number**power, [(atom, inner * power) for atom, inner in one]
        lead = poly[min(poly)] if poly else 1.0
        lead = lead if whole else abs(lead)
        unit = {key: value / lead for key, value in poly.items()}
        if len(one) == 1 and one[0][1] == 1 and unit == {one: 1.0}:
            return lead**power, [(one[0][0], power)]
        atom = self.atom(tuple(sorted((key, float(f"{value:.12g}")) for key, value in unit.items())))
        self.inside.setdefault(atom, unit)
        return lead**power, [(atom, power)]

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

    def summands(self, term: int, axes: Axes, over: Sequence[int], shape: Axes) -> Iterator[Poly]:
        """Sums of products whose total over axes of an array of this shape is this value of the other axes."""
        kept = [axis for axis in range(len(shape)) if axis not in over]
        labels = [kept.index(axis) if axis in kept else -1 - axis for axis in range(len(shape))]
        product = self.terms[term].kind == "product"
        parts = self.parts(term, axes) if product else [(term, axes, 1.0)]
        for place, (one, view, power) in enumerate(parts):
            if self.terms[one].kind == "meeting" and self.terms[one].data[0] == "reduce_sum" and power >= 1:
                wide = [(t, tuple(v[n] if n >= 0 else -1 for n in labels), p) for t, v, p in parts]
                rest = [(self.poly(t, v), p - (n == place)) for n, (t, v, p) in enumerate(wide)]
                for (inner,) in self.operands(one, view, [labels], [shape]):
                    yield self.multiply(self.terms[term].data[0] if product else 1.0, [(self.poly(*inner), 1.0), *rest])
