"""Which loops of two programs are compared turn by turn: those that one of them has written out."""

from collections import Counter
from math import prod
from typing import Any

from equiv.programs.jaxpr import read_scan, visit_equations

LONGEST = 30_000
"""Number of equations, each turn's counted, up to which a program is written out: a numbering takes 0.1 ms each."""


def differing_loops(left: Any, right: Any) -> frozenset[int]:
    """Lengths of which two jaxprs have another number of `scan`s; none where either is too long when written out.

    Of a program that has no jaxpr (None) no loop counts.

    A `scan` within a `scan` counts as often as it runs, so that a loop over layers that each loop over time, and as
    many loops over time, differ in the loop over layers alone.
    """
    ours, theirs = scan_lengths(left), scan_lengths(right)
    found = frozenset(length for length in ours.keys() | theirs.keys() if length and ours[length] != theirs[length])
    return found if max(unrolled_size(left, found), unrolled_size(right, found)) <= LONGEST else frozenset()


def scan_lengths(jaxpr: Any) -> Counter[int]:
    """Length to how many `scan`s of it run."""
    found: Counter[int] = Counter()
    for enclosing, eqn in visit_equations(jaxpr) if jaxpr is not None else ():
        if eqn.primitive.name == "scan":
            found[read_scan(eqn).length] += _turns(enclosing, None)
    return found


def unrolled_size(jaxpr: Any, lengths: frozenset[int]) -> int:
    """Number of equations when the loops of these lengths are written out."""
    if jaxpr is None or not lengths:
        return 0
    return sum(_turns(enclosing, lengths) for enclosing, _ in visit_equations(jaxpr))


def _turns(enclosing: tuple[Any, ...], lengths: frozenset[int] | None) -> int:
    """How often what is inside these equations is run, by loops of these lengths; None: by all."""
    loops = (read_scan(eqn).length for eqn in enclosing if eqn.primitive.name == "scan")
    return prod(length for length in loops if lengths is None or length in lengths)
