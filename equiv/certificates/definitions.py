"""The prover's names as definitions: what each is a name of, in terms of earlier ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from equiv.certificates.checker.terms import Index, View, through, whole
from equiv.certificates.program_data import (
    NotCertified,
    describe_operation,
    describe_parameters,
    hash_bytes,
    hash_content,
)
from equiv.programs.prover.algebra import Product, Sum
from equiv.programs.prover.digits import Digit, SplitTerm
from equiv.programs.prover.terms import TermView

Row = list[Any]
"""A definition as a certificate has it: kind, data, views of terms that it is of, own shape, dtype."""

Seen = tuple[int, View]
"""A term of the certificate through a view."""


@dataclass(frozen=True)
class FirstStep:
    """The first equation of which a term is a result: the equation, its operands, and which result it is."""

    eqn: Any
    ins: Sequence[TermView]
    number: int


@dataclass
class Definitions:
    """Definitions of the terms of two programs.

    In the prover a name may depend on turns of loops; here these are the first axes of a term.

    Attributes:
        recorded: name to what it is the name of.
        made: term to the product, sum or reduction that it is.
        splits: term to what it is split of.
        carries: name of a loop's carry to how often the loops around it turn, its own the last.
        first: term to the first equation that made it.
        rows: the definitions so far.
        seen: name of a term to its row and view, by the term's axes and the turns of loops.
    """

    recorded: Mapping[str, tuple[Any, ...]]
    made: Mapping[str, Any]
    splits: Mapping[str, SplitTerm]
    carries: dict[str, tuple[int, ...]] = field(default_factory=dict)
    first: dict[str, FirstStep] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def see(self, views: Iterable[TermView]) -> None:
        """Note the shapes and dtypes of terms."""
        for view in views:
            sizes: dict[int, int] = {}
            for axis, size in zip(view.axes, view.shape, strict=True):
                for one in axis if isinstance(axis, tuple) else (Digit(axis, 1, size),):
                    if one.axis is not None:
                        sizes[one.axis] = sizes.get(one.axis, 1) * one.size
            self.shapes.setdefault(view.term, (tuple(sizes[axis] for axis in sorted(sizes)), view.dtype))

    def see_made(self) -> None:
        """Note the shapes and dtypes of terms that are no equation's result, but parts of such a one."""
        for made in self.made.values():
            if isinstance(made, Product | Sum):
                pairs = made.factors if isinstance(made, Product) else made.terms
                self.see(one for one, _ in pairs)
            else:
                self.see([made.value])

    def claim(self, view: TermView) -> list[Any]:
        """A value as a certificate has it: the number of its term, and its view of it."""
        term, seen = self.look(view)
        return [term, to_lists(seen)]

    def look(self, view: TermView) -> Seen:
        """A value: the number of its term, and its view of it."""
        env: dict[int, list[tuple[int, Index]]] = {}
        for place, (axis, size) in enumerate(zip(view.axes, view.shape, strict=True)):
            digits = axis if isinstance(axis, tuple) else (Digit(axis, 1, size),)
            for number, one in enumerate(digits):
                inner = prod(other.size for other in digits[number + 1 :])
                if one.axis is not None:
                    env.setdefault(one.axis, []).append((-one.divisor, ((place, inner, one.size),)))
        joined = {axis: sum((index for _, index in sorted(found)), ()) for axis, found in env.items()}
        term, seen = self.find(view.term)
        return term, through(seen, joined)

    def find(self, name: str) -> Seen:
        """A term of the prover as a term of the certificate, defined now if it is not yet.

        Raises:
            NotCertified: the checker has no such terms.
        """
        if name not in self.seen:
            self.seen[name] = self._find(name)
        return self.seen[name]

    def _find(self, name: str) -> Seen:
        if name in self.splits:
            split = self.splits[name]
            numbers = iter(range(len(split.digits)))
            env = {axis: sum((whole(next(numbers), n) for n in sizes), ()) for axis, sizes in enumerate(split.sizes)}
            term, seen = self.find(split.term)
            return term, through(seen, env)
        parts = self.recorded.get(name, ("unknown",))
        if len(parts) == 2 and parts[1] == "once":
            return self.find(self.recorded[parts[0]][2])
        kind = parts[0] if isinstance(parts[0], str) else "key"
        if name not in self.carries and kind in ("slice", "stack", "whole"):
            return getattr(self, f"_{kind}")(*parts[1:])
        return self._define(name, kind, parts)

    def _whole(self, name: str) -> Seen:
        """A view as a term of its own: on its axes that are not of size one."""
        _, term, axes, shape, dtype = self.recorded[name]
        found, seen = self.look(TermView(term, tuple(map(_as_digits, axes)), tuple(shape), dtype))
        return found, through(seen, _without_units(shape))

    def _slice(self, *parts: Any) -> Seen:
        if len(parts) == 1:  # of a loop that turns once
            return self._whole(parts[0])
        depth, term, axis, length = parts
        found, seen = self.find(term)
        own = self.shapes[term][0]
        env = {one: whole(one - (one > axis), size) for one, size in enumerate(own)}
        return found, through(seen, env | {axis: whole(-1 - depth, length)})

    def _stack(self, depth: int, term: str, length: int, _: str) -> Seen:
        found, seen = self.find(term)
        env = {axis: whole(axis + 1, size) for axis, size in enumerate(self.shape(term)[0])}
        return found, through(seen, env | {-1 - depth: whole(0, length)})

    def shape(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a term, without axes of size one.

        Raises:
            NotCertified: they are not known.
        """
        if name in self.splits:
            split = self.splits[name]
            return tuple(size for sizes in split.sizes for size in sizes), self.shape(split.term)[1]
        if name not in self.shapes:
            self.shapes[name] = self._infer_shape(self.recorded.get(name, ("unknown",)))
        return self.shapes[name]

    def _infer_shape(self, parts: tuple[Any, ...]) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of what is no equation's result, from its operands."""
        if parts[0] == "elementwise":
            sizes: dict[int, int] = {}
            for term, _, axes, _ in (self.recorded[one] for one in parts[2]):
                own = self.shape(term)[0]
                sizes |= {place: own[axis] for place, axis in enumerate(axes) if axis is not None}
            return tuple(sizes[place] for place in range(len(sizes))), parts[3]
        if parts[0] == "reduce":
            own = self.shape(parts[2])[0]
            return tuple(size for axis, size in enumerate(own) if axis not in parts[3]), parts[-1]
        if parts[0] == "dot":
            one, other, sums, batches = parts[1]
            shapes = self.shape(one)[0], self.shape(other)[0]
            free = [
                size
                for side, own in enumerate(shapes)
                for axis, size in enumerate(own)
                if axis not in [pair[side] for pair in (*sums, *batches)]
            ]
            return (*(shapes[0][pair[0]] for pair in batches), *free), parts[-1]
        raise NotCertified(f"a term of the kind {parts[0]!r} is of no known shape")

    def _define(self, name: str, kind: str, parts: tuple[Any, ...]) -> Seen:
        shape, dtype = self.shape(name)
        if name in self.carries:
            loops = self.carries[name]
            turns = [whole(-1 - number, size) for number, size in enumerate(loops) if size != 1]
            return self._add("carry", [], [], turns, shape, dtype)
        if kind in ("input", "number", "array", "key"):
            return self._add(kind, LEAVES[kind](parts), [], [], shape, dtype)
        made = self.made.get(name)
        if isinstance(made, Product | Sum):
            pairs = made.factors if isinstance(made, Product) else made.terms
            weights = [float(weight) for _, weight in pairs]
            of = [self.look(one) for one, _ in pairs]
            return self._join(type(made).__name__.lower(), [made.constant, weights], of, shape, dtype)
        if kind in ("opaque", "lookup", "reshape") and name in self.first:
            return self._operation(self.first[name], shape, dtype)
        rule = getattr(self, f"_{kind}", None)
        if rule is None:
            raise NotCertified(f"the checker knows no terms of the kind {kind!r}")
        return rule(parts, shape, dtype)

    def _add(
        self, kind: str, data: Any, of: list[Seen], turns: Sequence[Index], shape: Sequence[int], dtype: str
    ) -> Seen:
        sizes = [size for one in turns for _, _, size in one]
        self.rows.append([kind, data, [[term, to_lists(view)] for term, view in of], [*sizes, *shape], dtype])
        return len(self.rows) - 1, (*turns, *(whole(axis, size) for axis, size in enumerate(shape)))

    def _join(
        self,
        kind: str,
        data: Any,
        of: list[Seen],
        shape: Sequence[int],
        dtype: str,
        bound: Sequence[Index] = (),
    ) -> Seen:
        """Define a term of views by its own axes, those after them, and turns of loops; `bound`: such turns."""
        sizes: dict[int, int] = {}
        for _, view in of:
            for one in view:
                for axis, divisor, size in one:
                    if axis < 0 and axis not in [digit[0] for other in bound for digit in other]:
                        sizes[axis] = max(sizes.get(axis, 1), divisor * size)
        turns = [whole(axis, sizes[axis]) for axis in sorted(sizes, reverse=True)]
        env = {axis: whole(number, sizes[axis]) for number, axis in enumerate(sorted(sizes, reverse=True))}
        env |= {
            one[0][0]: whole(len(turns) + len(shape) + number, one[0][2]) for number, one in enumerate(bound) if one
        }
        known = {axis for _, view in of for one in view for axis, _, _ in one if axis >= 0}
        env |= {axis: ((axis + len(turns), 1, 0),) for axis in known}
        views = [(term, _shift(view, env)) for term, view in of]
        return self._add(kind, data, views, turns, shape, dtype)

    def _elementwise(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        _, (name, extra), names, _ = parts
        operands = [self.recorded[one] for one in names]
        of = [self.look(TermView(term, tuple(axes), tuple(shape), own)) for term, own, axes, _ in operands]
        text = "{}" if name == "convert_element_type" else describe_parameters(extra)
        return self._join("elementwise", [name, text], of, shape, dtype)

    def _meeting(self, data: Any, of: list[Seen], letters: Any, shape: Sequence[int], dtype: str) -> Seen:
        """Of terms whose axes have names: those of the result's, and after them those that are summed."""
        sizes: dict[int, int] = {}
        views = []
        for (term, view), (own, names) in zip(of, letters, strict=True):
            sizes |= dict(zip(names, own, strict=True))
            views.append((term, through(view, {n: whole(name, own[n]) for n, name in enumerate(names)})))
        bound = [sizes[name] for name in sorted(sizes) if name >= len(shape)]
        return self._join("meeting", [*data, bound], views, shape, dtype)

    def _dot(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        """Axes that meet have one letter: the batch's, those of the first operand, of the second, what is summed."""
        _, (one, other, sums, batches), kept, precision, _, _ = parts
        letters: list[Any] = []
        free = len(batches)
        for side, term in enumerate((one, other)):
            own = self.shape(term)[0]
            known = {pair[side]: len(shape) + place for place, pair in enumerate(sums)}
            known |= {pair[side]: place for place, pair in enumerate(batches)}
            rest = [axis for axis in range(len(own)) if axis not in known]
            known |= {axis: free + place for place, axis in enumerate(rest)}
            free += len(rest)
            letters.append((own, [known[axis] for axis in range(len(known))]))
        text = describe_parameters([*kept, ("precision", precision)])
        return self._meeting(["dot_general", text], [self.find(one), self.find(other)], letters, shape, dtype)

    def _reduce(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        _, name, term, gone, params, _ = parts
        own = self.shape(term)[0]
        kept, summed = iter(range(len(shape))), iter(range(len(shape), len(own)))
        letters = [next(summed if axis in gone else kept) for axis in range(len(own))]
        return self._meeting([name, describe_parameters(params)], [self.find(term)], [(own, letters)], shape, dtype)

    def _operation(self, step: FirstStep, shape: Sequence[int], dtype: str) -> Seen:
        kind, op, data, _ = describe_operation(step.eqn)
        of = [self.look(one) for one in step.ins]
        out = list(step.eqn.outvars[step.number].aval.shape)
        if kind == "meeting":
            # Of an operand that is repeated along what is summed.
            rank = iter(range(len(out)))
            places = {axis: next(rank) for axis, size in enumerate(out) if size != 1}
            high = max((label for labels in data[2] for label in labels), default=0)
            sums = sorted(
                {
                    label
                    for one, labels in zip(step.ins, data[2], strict=True)
                    for n, label in enumerate(labels)
                    if label >= len(out) and one.shape[n] != 1
                }
            )
            places |= {label: len(shape) + number for number, label in enumerate(sums)}
            letters = [
                (one.shape, [places.get(label, high + 1) for label in labels])
                for one, labels in zip(step.ins, data[2], strict=True)
            ]
            sizes = {
                places[label]: one.shape[n]
                for one, labels in zip(step.ins, data[2], strict=True)
                for n, label in enumerate(labels)
                if label in sums
            }
            views = [
                (term, through(view, {n: whole(name, own[n]) for n, name in enumerate(names)}))
                for (term, view), (own, names) in zip(of, letters, strict=True)
            ]
            return self._join("meeting", [op, data[0], [sizes[key] for key in sorted(sizes)]], views, shape, dtype)
        if kind != "operation":
            raise NotCertified(f"a {step.eqn.primitive.name} that the checker has no rule for")
        said = [op, data, [list(one.shape) for one in step.ins], step.number, out]
        return self._join("operation", said, of, shape, dtype)

    def _last(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        return self._ended("last", parts[1], [], shape, dtype)

    def _until(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        return self._ended("until", parts[1], [self._by_name(parts[3])], shape, dtype)

    def _ended(self, kind: str, carry: str, stop: list[Seen], shape: Sequence[int], dtype: str) -> Seen:
        loops = self.carries[carry]
        return self._join(kind, [], [self.find(carry), *stop], shape, dtype, [whole(-len(loops), loops[-1])])

    def _by_name(self, name: str) -> Seen:
        _, term, axes, shape, dtype = self.recorded[name]
        term, view = self.look(TermView(term, tuple(map(_as_digits, axes)), tuple(shape), dtype))
        return term, through(view, _without_units(shape))

    def _cond(self, parts: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Seen:
        return self._join("cond", [], [self._by_name(name) for name in (parts[1], *parts[2])], shape, dtype)


LEAVES: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "input": lambda parts: list(parts[1:4]),
    "number": lambda parts: parts[2].hex(),
    "array": lambda parts: hash_bytes(parts[3]),
    "key": lambda parts: hash_content(parts[0]),
}
"""Kind of an input or a constant to what is said of it."""


def _shift(view: View, env: Mapping[int, Index]) -> View:
    """A view with its axes renumbered, which has to be by whole ones."""
    return tuple(
        tuple((env[axis][0][0] if env[axis] else axis, divisor, size) for axis, divisor, size in one) for one in view
    )


def _without_units(shape: Sequence[int]) -> dict[int, Index]:
    numbers = iter(range(len(shape)))
    return {axis: whole(next(numbers), size) for axis, size in enumerate(shape) if size != 1}


def _as_digits(axis: Any) -> Any:
    return tuple(Digit(*one) for one in axis) if isinstance(axis, tuple | list) else axis


def to_lists(view: View) -> list[list[list[int]]]:
    """A view as JSON has it."""
    return [[list(digit) for digit in one] for one in view]
