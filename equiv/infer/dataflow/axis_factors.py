"""How a program splits and merges axes: 12 as 4 heads of 3. Only the lengths are kept, not whose axes they are."""

from collections.abc import Iterable, Mapping
from itertools import product

from equiv.infer.dataflow.blocks import WalkedEquation
from equiv.infer.dataflow.reshapes import reshape_groups

Factors = tuple[int, ...]
"""Sizes of the axes that one axis is split into, the slowest first."""

MAX_FACTORINGS = 8
"""Largest number of ways to split one axis that are tried."""


def axis_factors(equations: Iterable[WalkedEquation]) -> Mapping[int, tuple[Factors, ...]]:
    """Length of an axis to the ways in which a program splits such an axis, or merges others to one."""
    found: dict[int, dict[Factors, None]] = {}
    for step in equations:
        for length, parts in _splits(step):
            found.setdefault(length, {})[parts] = None
    return {length: tuple(ways) for length, ways in found.items()}


def _splits(step: WalkedEquation) -> Iterable[tuple[int, Factors]]:
    if step.name in ("reshape", "squeeze"):
        old, new = step.ins[0].shape, step.outs[0].shape
        for before, after in reshape_groups(old, new):
            ours, theirs = (
                tuple(size for size in sizes if size > 1)
                for sizes in ([old[axis] for axis in before], [new[axis] for axis in after])
            )
            if len(ours) == 1 < len(theirs):
                yield ours[0], theirs
            elif len(theirs) == 1 < len(ours):
                yield theirs[0], ours
    elif step.name in ("split", "slice") and step.ins:
        for size, part in zip(step.ins[0].shape, step.outs[0].shape, strict=True):
            # Equal parts side by side are an axis: query, key and value are 3 of 12.
            if 1 < part < size and size % part == 0:
                yield size, (size // part, part)


def factorings(length: int, factors: Mapping[int, tuple[Factors, ...]]) -> list[Factors]:
    """The ways to split an axis, unsplit first; parts are split further."""
    found: dict[Factors, None] = {(length,): None}
    for parts in factors.get(length, ()):
        # A part is shorter than the whole, so that this ends.
        for ways in product(*(factorings(part, factors) for part in parts)):
            found[tuple(size for way in ways for size in way)] = None
            if len(found) >= MAX_FACTORINGS:
                return list(found)
    return list(found)
