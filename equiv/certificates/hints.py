"""What a step needs besides its rule: which axes of a term are those that an equation sums, and which sums it opens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from equiv.certificates.checker.rules import Step, relabel
from equiv.certificates.checker.terms import Index, Refused, Terms, Value, View, cut, through, whole
from equiv.certificates.definitions import Seen, to_lists


def find_hints(rule: str, terms: Terms, step: Step) -> Iterator[Any]:
    """What could be given to the checker for a step under a rule, likeliest first."""
    try:
        if rule == "congruence" and step.kind == "meeting":
            yield from _find_bound(terms, step)
        elif rule in ("linear", "two passes"):
            yield from _find_sums(terms, step)
        elif rule == "positive":
            yield from _find_variance(terms, step)
        else:
            yield None
    except (Refused, IndexError):
        return


@dataclass
class _Match:
    """Digits of axes that are to be found, by what stands at their places."""

    found: dict[tuple[int, int, int], Index] = field(default_factory=dict)

    def add(self, view: View, other: View, env: Mapping[int, Index]) -> bool:
        """Match a view, whose axes are known or to be found, with one of the same term; False: it cannot be."""
        new: dict[tuple[int, int, int], Index] = {}
        for one, there in zip(view, other, strict=True):
            low = 1
            for axis, divisor, size in reversed(one):
                try:
                    place = _join(cut(there, low, size))
                    known = cut(env[axis], divisor, size) if axis in env else ((axis, divisor, size),)
                except Refused:
                    return False
                low *= size
                if axis in env or axis < 0:
                    if _join(known) != _join(place):
                        return False
                elif self.found.get((axis, divisor, size), place) != place:
                    return False
                else:
                    new[axis, divisor, size] = place
        self.found |= new
        return True

    def bound(self, first: int, sizes: Sequence[int]) -> list[Index] | None:
        """The axes from a first one on, if all of their digits are found."""
        indices: list[Index] = []
        for axis, size in enumerate(sizes, first):
            digits = sorted((one for one in self.found if one[0] == axis), key=lambda one: -one[1])
            joined = sum((self.found[one] for one in digits), ())
            if prod(n for _, _, n in joined) != size:
                return None
            indices.append(_join(joined))
        return indices


def _join(index: Index) -> Index:
    """An index with digits side by side put together."""
    (joined,) = through((((0, 1, prod(size for _, _, size in index)),),), {0: index})
    return joined


def _atoms(terms: Terms, seen: Seen) -> Iterator[Seen]:
    """A term and what it is made from, if it is a sum or product, with views."""
    yield seen
    it, env = terms.terms[seen[0]], dict(enumerate(seen[1]))
    if it.kind in ("sum", "product"):
        for term, view in it.of:
            yield from _atoms(terms, (term, through(view, env)))


def _find_bound(terms: Terms, step: Step) -> Iterator[Any]:
    term, (ins, _) = terms.terms[step.out.term], relabel(step)
    if term.kind != "meeting" or len(term.of) != len(ins):
        return
    env = dict(enumerate(step.out.view))
    for order in (ins, ins[::-1]):
        match = _Match()
        pairs = list(zip(term.of, order, strict=True))
        if all(of == one.term and match.add(view, one.view, env) for (of, view), one in pairs):
            bound = match.bound(len(term.shape), term.data[2])
            if bound is not None:
                yield to_lists(tuple(bound))


def _solve(terms: Terms, seen: Seen, there: list[Seen], summed: set[int]) -> list[Index] | None:
    """By which axes a sum in a view is, so that it sums what is made from some terms in views."""
    it = terms.terms[seen[0]]
    if any(axis in summed for one in seen[1] for axis, _, _ in one) or not all(it.data[2]):
        return None
    env = dict(enumerate(seen[1]))
    within = [atom for of in it.of for atom in _atoms(terms, of)]
    pairs = [(one[1], other[1]) for one, other in product(within, there) if one[0] == other[0] and one[1]]
    for start in range(len(pairs)):
        match = _Match()
        for one, other in (*pairs[start:], *pairs[:start]):
            match.add(one, other, env)
        bound = match.bound(len(it.shape), it.data[2])
        if bound is not None and all(axis in summed for one in bound for axis, _, _ in one):
            return bound
    return None


def _find_sums(terms: Terms, step: Step) -> Iterator[Any]:
    ins, sizes = relabel(step)
    inside = [atom for one in ins for atom in _atoms(terms, one[:2])]
    made = list(_atoms(terms, step.out[:2]))

    def is_sum(seen: Seen) -> bool:
        it = terms.terms[seen[0]]
        return it.kind == "meeting" and it.data[0] == step.op

    def by_axes(seen: Seen) -> bool:
        return any(axis in sizes for one in seen[1] for axis, _, _ in one)

    # Without sums within the sum, then with each of them opened.
    within = list(dict.fromkeys(one for one in inside if is_sum(one) and by_axes(one)))
    for opened in (None, *within):
        first = max(sizes, default=-1) + 1
        further = [] if opened is None else terms.terms[opened[0]].data[2]
        there, claims, summed = list(inside), [], set(sizes)
        if opened is not None:
            it, bound = terms.terms[opened[0]], [whole(first + n, size) for n, size in enumerate(further)]
            env = dict(enumerate((*opened[1], *bound)))
            there += [atom for of, view in it.of for atom in _atoms(terms, (of, through(view, env)))]
            claims.append([opened[0], to_lists(opened[1]), to_lists(tuple(bound))])
            summed |= set(range(first, first + len(further)))
        for one in dict.fromkeys((*made, *inside)):
            if is_sum(one) and one != opened and not by_axes(one):
                bound = _solve(terms, one, there, summed)
                if bound is not None:
                    claims.append([one[0], to_lists(one[1]), to_lists(tuple(bound))])
        yield [further, claims]


def _find_variance(terms: Terms, step: Step) -> Iterator[Any]:
    zero = terms.number(step.ins[0].term) == 0
    value: Value = step.ins[bool(zero)]
    it = terms.terms[value.term]
    if it.kind != "sum" or len(it.of) != 2:
        return
    env = dict(enumerate(value.view))
    parts = [((term, through(view, env)), weight) for (term, view), weight in zip(it.of, it.data[1], strict=True)]
    for (square, scale), (other, _) in (parts, parts[::-1]):
        squares, product_ = terms.terms[square[0]], terms.terms[other[0]]
        if squares.kind != "meeting" or product_.kind != "product" or len(product_.of) != 1:
            continue
        (root, view), sizes = product_.of[0], squares.data[2]
        mean = root, through(view, dict(enumerate(other[1])))
        bound = [whole(len(value.shape) + n, size) for n, size in enumerate(sizes)]
        inner = dict(enumerate((*square[1], *bound)))
        there = [atom for of, one in squares.of for atom in _atoms(terms, (of, through(one, inner)))]
        summed = set(range(len(value.shape), len(value.shape) + len(sizes)))
        if terms.terms[root].kind == "meeting" and (found := _solve(terms, mean, there, summed)) is not None:
            claims = [[one[0], to_lists(one[1]), to_lists(tuple(b))] for one, b in ((square, bound), (mean, found))]
            yield [scale / prod(sizes), sizes, *claims]
