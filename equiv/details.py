"""Nouns of what stands behind a finding or a case: how a difference is spread, and what the ports look like."""

from dataclasses import dataclass

ULPS = (0, 1, 2, 4, 8, 16, 64, 256, 1024, 4096, 65536, 1048576)
"""Upper ends of the bins of a distribution of differences, in units in the last place; one more bin is open."""

SHADES = "0123456789"
"""Shades of a map of differences: 0 is no difference at all, 9 the largest, a third of a decade apart."""


BACK = "on the way back"
"""What is said in the name of a value that only a gradient needs."""


@dataclass(frozen=True)
class Spread:
    """How a difference is spread over the elements of an array.

    Attributes:
        ratios: error / budget after each train step; empty outside of training. A step without a budget is left at -1.
        ulps: how many elements of the native runs differ by up to so many ulps of the reference's value; bins as in
            `ULPS`, the last open.
        shades: the worst step as a matrix, the largest difference of every block as one of `SHADES`.
        shape: of the matrix that the shades stand for.
        rounded: how far the native run of the reference and of the candidate is from its own float64 run, in ulps of
            the largest value; empty where there is no float64 run.
        relation: what the candidate's values are of the reference's, where that is simple, within the budget: `all
            zero`, `2 times`, `the same values in another order`, `unchanged by every step`.
    """

    ratios: tuple[float, ...] = ()
    ulps: tuple[int, ...] = ()
    shades: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    rounded: tuple[float, ...] = ()
    relation: str = ""


@dataclass(frozen=True)
class Source:
    """A builder as it is written.

    Attributes:
        file: as the user gave it, never a place on the machine.
        line: number of its first line there.
        text: its lines, dedented.
    """

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Waypoint:
    """One value that the reference computes on the way to its outputs, and the nearest one of the candidate.

    Attributes:
        name: the primitive, and the module that the trace names.
        where: `file:line` of the user's own code in the reference.
        ratio: error / budget of the candidate's nearest value; None where it has none of that size.
        floor: the same of a reference whose inputs have moved by one ulp: what rounding alone does.
        lost: whether the candidate has neither it nor anything that the reference makes of it; a value over its budget
            that is not lost is only another way to the same.
    """

    name: str
    where: str
    ratio: float | None
    floor: float
    lost: bool = False
