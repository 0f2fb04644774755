"""The prover's names as definitions: what each is a name of, in terms of earlier ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equiv.certificates.checker.terms import to_text
from equiv.certificates.program_data import (
    NotCertified,
    describe_parameters,
    hash_bytes,
    hash_content,
    to_json,
)
from equiv.programs.prover.algebra import Product, ReducedSum, Sum
from equiv.programs.prover.digits import has_digits
from equiv.programs.prover.terms import TermView

Row = list[Any]
"""A definition as a certificate has it: kind, data, terms that it is of, own shape, dtype."""


@dataclass
class Definitions:
    """Definitions of the terms of two programs.

    Attributes:
        recorded: name to what it is the name of.
        made: term to the product, sum or reduction that it is.
        carries: name of a loop's carry to the number of loops around it, its own among them.
        rows: the definitions so far.
        numbers: name of a term to its row.
    """

    recorded: Mapping[str, tuple[Any, ...]]
    made: Mapping[str, Product | Sum | ReducedSum]
    carries: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[list[int], str]] = field(default_factory=dict)

    def see(self, views: Iterable[TermView]) -> None:
        """Note the shapes and dtypes of terms.

        Raises:
            NotCertified: a view has digits of axes, which the checker does not know.
        """
        for view in views:
            if has_digits(view):
                raise NotCertified("a reshape splits or merges axes, which the checker does not know")
            sizes = {axis: size for axis, size in zip(view.axes, view.shape, strict=True) if axis is not None}
            self.shapes.setdefault(view.term, ([sizes[axis] for axis in sorted(sizes)], view.dtype))

    def see_made(self) -> None:
        """Note the shapes and dtypes of terms that are no equation's result, but parts of such a one."""
        for made in self.made.values():
            self.see([made.value] if isinstance(made, ReducedSum) else self._parts(made)[0])

    def claim(self, view: TermView) -> list[Any]:
        """A value as a certificate has it: the number of its term, and the axes of the view."""
        self.see([view])
        return [self.number(view.term), _axes(view.axes)]

    def number(self, name: str) -> int:
        """The number of a term, defined now if it is not yet.

        Raises:
            NotCertified: the checker has no such terms.
        """
        if name not in self.numbers:
            row = self._define(name)
            self.numbers[name] = len(self.rows)
            self.rows.append(row)
        return self.numbers[name]

    def _define(self, name: str) -> Row:
        if name not in self.shapes:
            raise NotCertified("a term of the proof is of no known shape")
        shape, dtype = self.shapes[name]
        if name in self.carries:
            return ["carry", [self.carries[name]], [], shape, dtype]
        parts = self.recorded.get(name, ("unknown",))
        made = self.made.get(name)
        if isinstance(made, Product | Sum):
            views, weights = self._parts(made)
            kind = "product" if isinstance(made, Product) else "sum"
            return [kind, [made.constant, weights], [self.claim(one) for one in views], shape, dtype]
        if len(parts) == 2 and parts[1] == "once":
            parts = self.recorded[parts[0]]
        kind = parts[0][0] if isinstance(parts[0], tuple) else parts[0]
        rule = getattr(self, f"_{kind}", None)
        if rule is None:
            raise NotCertified(f"the checker knows no terms of the kind {kind!r}")
        return [*rule(parts, shape), shape, dtype]

    def _parts(self, made: Product | Sum) -> tuple[list[TermView], list[float]]:
        pairs = made.factors if isinstance(made, Product) else made.terms
        return [one for one, _ in pairs], [float(weight) for _, weight in pairs]

    def _view(self, name: str) -> tuple[list[Any], list[int]]:
        """A value by its own name: what a certificate has of it, and its shape."""
        _, term, axes, shape, dtype = self.recorded[name]
        return self.claim(TermView(term, tuple(axes), tuple(shape), dtype)), list(shape)

    def _input(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["input", list(parts[1:]), []]

    def _number(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["number", parts[2].hex(), []]

    def _array(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["array", hash_bytes(parts[3]), []]

    def _key(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["key", hash_content(parts[0]), []]

    def _reshape(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        _, term, view, _, _ = parts
        return ["reshape", [size for _, size in view], [[self.number(term), _axes(axis for axis, _ in view)]]]

    def _elementwise(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        _, (name, extra), names, _ = parts
        operands = [self.recorded[one] for one in names]
        of = [[self.number(term), _axes(axes)] for term, _, axes, _ in operands]
        return ["elementwise", [name, to_text(describe_parameters(extra))], of]

    def _dot(self, parts: tuple[Any, ...], shape: list[int]) -> Row:
        """Axes that meet have one letter: the batch's, those of the first operand, of the second, what is summed."""
        _, (one, other, sums, batches), kept, precision, _, _ = parts
        letters: list[list[int]] = []
        free = len(batches)
        for side, term in enumerate((one, other)):
            known = {pair[side]: len(shape) + place for place, pair in enumerate(sums)}
            known |= {pair[side]: place for place, pair in enumerate(batches)}
            rest = [axis for axis in range(len(self.shapes[term][0])) if axis not in known]
            known |= {axis: free + place for place, axis in enumerate(rest)}
            free += len(rest)
            letters.append([known[axis] for axis in range(len(known))])
        of = [[self.number(term), own] for term, own in zip((one, other), letters, strict=True)]
        return ["meeting", ["dot_general", to_json(precision), to_text(describe_parameters(kept))], of]

    def _reduce(self, parts: tuple[Any, ...], shape: list[int]) -> Row:
        _, name, term, gone, params, _ = parts
        kept, summed = iter(range(len(shape))), iter(range(len(shape), len(shape) + len(gone)))
        rank = len(shape) + len(gone)
        letters = [next(summed if axis in gone else kept) for axis in range(rank)]
        return ["meeting", [name, None, to_text(describe_parameters(params))], [[self.number(term), letters]]]

    def _opaque(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        _, (((_, op, *_), params, *_), names), index, shape, _ = parts
        operands = [self._view(name) for name in names]
        text = to_text(describe_parameters(params))
        return ["operation", [op, text, [own for _, own in operands], index, list(shape)], [one for one, _ in operands]]

    def _slice(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        if len(parts) == 2:
            claim, shape = self._view(parts[1])
            return ["first", [shape], [claim]]
        _, depth, term, axis, length = parts
        return ["slice", [depth + 1, length], [[self.number(term), [axis]]]]

    def _stack(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        _, depth, term, length, _ = parts
        return ["stack", [depth + 1, length], [[self.number(term), []]]]

    def _last(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["last", [], [[self.number(parts[1]), []]]]

    def _until(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["until", [], [[self.number(parts[1]), []], self._view(parts[3])[0]]]

    def _cond(self, parts: tuple[Any, ...], _: list[int]) -> Row:
        return ["cond", [], [self._view(name)[0] for name in (parts[1], *parts[2])]]


def _axes(axes: Iterable[int | None]) -> list[int]:
    return [-1 if axis is None else axis for axis in axes]
