"""What is known of terms that are slices, concatenations, or computed from concatenations."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from equiv.programs.prover.digits import axis_digits
from equiv.programs.prover.terms import TermView

NEAR = 8
"""Through how many contractions a slice is computed from slices: a block of a transformer has six in a row."""

DEEP = 48
"""Through how many operations, one in the other, a slice is computed from slices where no concatenation is near."""

Bounds = tuple[tuple[int, int], ...]
"""For every axis the first index of a slice, and the one after the last."""

Again = Callable[[list[TermView], tuple[int, ...]], TermView | None]
"""Numbers an operation again, on other operands and to another shape; None where no rule fits."""


@dataclass(frozen=True)
class Concatenation:
    """Values put together along axis 0 of the term, each on the axes of the term."""

    values: tuple[TermView, ...]

    @property
    def starts(self) -> list[int]:
        """Where each value starts, and where the last one ends."""
        return [0, *accumulate(value.shape[0] for value in self.values)]


@dataclass(frozen=True)
class Region:
    """A part of a term.

    Attributes:
        whole: the term, in its identity view.
        bounds: what is cut out of it.
        axes: for each axis of the part's own term the axis of the whole; axes of one element are none of its own.
    """

    whole: TermView
    bounds: Bounds
    axes: tuple[int, ...]


def kept_axes(bounds: Bounds) -> tuple[int, ...]:
    """The axes of which more than one element is left."""
    return tuple(axis for axis, (start, stop) in enumerate(bounds) if stop - start != 1)


@dataclass(frozen=True)
class Computed:
    """How a term was computed, element by element along some axes.

    Attributes:
        result: the result; a view of the term.
        operands: what it was computed from.
        places: for every axis of the result the axis of each operand at whose index it is computed; None: all of it.
        again: numbers the same operation on other operands.
    """

    result: TermView
    operands: tuple[TermView, ...]
    places: tuple[tuple[int | None, ...], ...]
    again: Again


def identity_view(value: TermView) -> TermView:
    """A value's term seen as it is."""
    sizes: dict[int, int] = {}
    for index in range(len(value.shape)):
        for one in axis_digits(value, index):
            if one.axis is not None:
                sizes[one.axis] = sizes.get(one.axis, 1) * one.size
    shape = tuple(sizes[axis] for axis in range(len(sizes)))
    return TermView(value.term, tuple(range(len(shape))), shape, value.dtype, value.constant)
