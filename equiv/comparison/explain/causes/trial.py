"""A cause that can be tried: a change of the candidate's program, and what is around a divergence to think of one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from jax.core import Tracer

from equiv.comparison.explain.alignment import AlignedSide, Alignment
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.core.output_name import InputName
from equiv.programs.primitives import IDENTITIES, VIEWS

CLOSE = 1e-9
"""Relative difference up to which an array is taken for another one: only of what is then tried."""


class Rank(IntEnum):
    """How usual and how small a change is: causes of a smaller rank come first where several explain the same."""

    CONSTANT = 1
    CONSTANTS = 2  # one constant at several places
    SHARES = 3  # a constant and what is left of 1
    START = 4
    NAMES = 5  # other leaves, layers or rows of the mapping
    FUNCTION = 6
    PARAMETER = 7  # an axis, a stride, a direction
    EXTRA = 8  # an operation with a constant or a leaf too many
    LAYOUT = 9
    LEFT_OUT = 10
    SHARED_CONSTANT = 11  # one that both programs have near
    GUESS = 12
    REBUILT = 13


@dataclass(frozen=True, eq=False)
class Pair:
    """Where two programs part: an operation of each side, of which a result differs and the operands do not.

    Attributes:
        reference: the reference's; None: it has no counterpart.
        candidate: the candidate's; None likewise.
    """

    reference: Operation | None
    candidate: Operation | None


@dataclass(frozen=True, eq=False)
class Trial:
    """One cause that can be tried.

    Attributes:
        text: what is changed, in words.
        changes: number of the probe to the changes of the candidate's program.
        rank: how usual and how small the change is.
        site: the operation of the candidate that is changed.
        variant: which of several changes with this text.
        in_place: whether something stands in the place of something else of its kind. An operation that is added or
            left out explains less by itself: with others of them it makes anything of anything.
        places: number of operations that are changed; where fewer explain the same, those are the cause.
        shown: the operations that are shown as its place, where these are not those at which the chains begin.
        fixed: whether it puts arrays of the reference's run into the candidate, which have no gradient.
    """

    text: str
    changes: Callable[[int], Changes]
    rank: Rank
    site: Operation | None = None
    variant: int = 0
    in_place: bool = True
    places: int = 1
    shown: Pair | None = None
    fixed: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """What sorts causes that explain the same: how usual, then at how many places."""
        return self.rank, self.places


@dataclass(frozen=True, eq=False)
class Scene:
    """A divergence with what is around it.

    Attributes:
        alignment: of both programs.
        pair: where they part.
        ours: arrays of the reference near it, by probe and value.
        theirs: those of the candidate.
        names: of both ports.
    """

    alignment: Alignment
    pair: Pair
    ours: Sequence[dict[int, np.ndarray]]
    theirs: Sequence[dict[int, np.ndarray]]
    names: tuple[str, str]

    @property
    def left(self) -> AlignedSide:
        """The reference's program."""
        return self.alignment.reference

    @property
    def right(self) -> AlignedSide:
        """The candidate's."""
        return self.alignment.candidate

    def twins_of(self, value: int) -> tuple[int, ...]:
        """The values of the candidate with the elements of one of the reference in the same order.

        Those that are read where the candidate's chains begin come first.
        """
        array = self.ours[0].get(value)
        found = [other for other in self.left.matches[value] if is_close(array, self.theirs[0].get(other))]
        read = {operand for operation in self.right.frontier for operand in operation.ins}
        return tuple(sorted(found, key=lambda other: other not in read))


NEAR = 14
"""Operations of a chain, from where it begins, that causes are looked for in."""


def near_operations(side: AlignedSide, operation: Operation | None) -> tuple[Operation, ...]:
    """The operations of a chain near its beginning."""
    return () if operation is None else side.later(operation, NEAR)


BEFORE = 8
"""Shared values before a divergence of which functions are looked for: one has steps that the other has, too."""


def sources_near(side: AlignedSide, operation: Operation) -> tuple[int, ...]:
    """The operands of an operation, then the values that these are made of, as far as they depend on an input."""
    record = side.recording
    found = list(dict.fromkeys(value for value in operation.ins if record.moving[value]))
    for value in found:
        maker = record.maker_of(value)
        if len(found) >= BEFORE:
            break
        found += [one for one in (() if maker is None else maker.ins) if record.moving[one] and one not in found]
    return tuple(found[:BEFORE])


def near_values(alignment: Alignment, pair: Pair) -> tuple[frozenset[int], frozenset[int]]:
    """The values around a divergence whose arrays causes look at, of the reference and of the candidate."""
    sides = (alignment.reference, pair.reference), (alignment.candidate, pair.candidate)
    near = [
        {value for operation in near_operations(side, one) for value in (*operation.ins, *operation.outs)}
        for side, one in sides
    ]
    for number, (side, one) in enumerate(sides):
        near[number] |= set(() if one is None else sources_near(side, one))
    for number, (side, _) in enumerate(sides):
        near[1 - number] |= {other for value in list(near[number]) for other in side.matches[value]}
    return frozenset(near[0]), frozenset(near[1])


def is_close(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two arrays have the same elements in the same order, in any shape."""
    if one is None or other is None or one.size != other.size or one.dtype.kind != other.dtype.kind:
        return False
    a, b = one.ravel(), other.ravel()
    if a.dtype.kind not in "fc":
        return bool((a == b).all())
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0) if a.size else 0.0
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= CLOSE * np.minimum(scale, 10 * np.abs(a)))
        return bool((same | (np.abs(a - b) <= CLOSE * CLOSE * scale)).all())


def always(changes: Changes) -> Callable[[int], Changes]:
    """The same changes on every probe."""
    return lambda _: changes


def edit_at(operation: Operation, change: Callable[[RecordingEvaluation, Any, list[Any]], Sequence[Any]]) -> Changes:
    """The changes that are one edit at an operation."""
    return Changes((Edit(operation.place, change),))


def edit_operand(operation: Operation, index: int, change: Callable[[Any], Any]) -> Changes:
    """The changes that are one operand replaced by a function of it."""

    def changed(evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        given = list(ins)
        given[index] = change(as_array(ins[index]))
        return evaluation.compute(eqn, given)

    return edit_at(operation, changed)


def fit(array: Any, like: Any) -> Any:
    """An array in the shape and dtype of another one of its size."""
    return as_array(array).reshape(np.shape(like)).astype(as_array(like).dtype)


def as_array(value: Any) -> Any:
    """An array of numpy; under a trace, where a change is differentiated, the value itself."""
    return value if isinstance(value, Tracer) else np.asarray(value)


def fill(array: Any, number: float) -> np.ndarray:
    """An array of the same shape and dtype that is filled with a number."""
    return np.full(np.shape(array), number, as_array(array).dtype)


def leaf_of(side: AlignedSide, value: int) -> InputName | None:
    """The leaf that a value is a view of; None where it is computed, or no leaf."""
    recording = side.recording
    while (operation := recording.maker_of(value)) is not None:
        if operation.primitive not in LEAF_VIEWS or not operation.ins:
            return None
        value = operation.ins[0]
    name = recording.inputs.get(value)
    return name if name is not None and name.kind == "leaf" else None


LEAF_VIEWS = VIEWS | IDENTITIES | {"convert_element_type", "rev", "slice"}
"""Operations behind which a leaf is still that leaf."""


def scalar_operands(side: AlignedSide, operation: Operation) -> Iterator[tuple[int, float]]:
    """Yield the operands that are one number, with their index."""
    for index, value in enumerate(operation.ins):
        number = side.recording.numbers.get(value)
        if number is not None:
            yield index, number
