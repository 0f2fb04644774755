"""Which element of one leaf is which of another, and the layouts that say so in a layer table."""

from dataclasses import dataclass
from itertools import pairwise

from equiv.core.layouts import Chain, Flip, Identity, Layout, MergeAxes, Squeeze, SwapAxes, Transpose
from equiv.infer.dataflow.strided_views import Form, Shape, strides, together


@dataclass(frozen=True)
class Relation:
    """Elements of a left leaf and of a right one, step by step.

    Attributes:
        starts: a left element and the right one that it is.
        steps: (number of steps, elements between them on the left, on the right), the longest on the left first.
    """

    starts: tuple[int, int]
    steps: tuple[tuple[int, int, int], ...]

    def image(self, left: int) -> int:
        """The right element of a left one."""
        rest, right = left - self.starts[0], self.starts[1]
        for size, ours, theirs in self.steps:
            count = min(rest // ours, size - 1)
            rest, right = rest - count * ours, right + count * theirs
        return right

    @property
    def plain(self) -> bool:
        """Whether the elements of both lie in the same order."""
        return all(ours == theirs for _, ours, theirs in self.steps)


def relation(left: Form, right: Form) -> Relation | None:
    """How two uses of the same numbers lie in their leaves; None where no reshape, transpose or flip joins them."""
    found = together(left, right)
    if found is None:
        return None
    one, two = left.start, right.start
    steps = []
    for size, ours, theirs in found:
        if ours < 0:
            one, two = one + (size - 1) * ours, two + (size - 1) * theirs
            ours, theirs = -ours, -theirs
        steps.append((size, ours, theirs))
    tidied: list[tuple[int, int, int]] = []
    for size, ours, theirs in sorted(steps, key=lambda step: -step[1]):
        last = tidied[-1] if tidied else (0, 0, 0)
        if last[1:] == (size * ours, size * theirs):
            tidied[-1] = (last[0] * size, ours, theirs)
        else:
            tidied.append((size, ours, theirs))
    return Relation((one, two), tuple(tidied))


def within(whole: Relation, part: Relation) -> bool:
    """Whether a relation of parts is what a relation of whole leaves says of them."""
    one, two = part.starts
    if whole.image(one) != two:
        return False
    return all(
        whole.image(one + count * ours) == two + count * theirs
        for size, ours, theirs in part.steps
        for count in {1, size - 1}
    )


@dataclass(frozen=True)
class Move:
    """What `layouts` takes: one axis of a leaf, as steps of the relation."""

    axis: int
    steps: tuple[int, ...]


def layouts(found: Relation, shapes: tuple[Shape, Shape]) -> tuple[Layout, Layout] | None:
    """Layouts of both whole leaves to one canonical leaf; None where the layouts that there are cannot say it.

    The canonical axes run as on the right; what is one axis on either side is one.
    """
    fine = _broken(found, shapes)
    if fine is None:
        return None
    fine = sorted(fine, key=lambda step: -abs(step[2]))
    right = _axes(shapes[1], [abs(step[2]) for step in fine])
    left = _axes(shapes[0], [step[1] for step in fine])
    groups = _groups(len(fine), [move.steps for move in (*left, *right)])
    if groups is None:
        return None
    flipped = {axis for axis, move in enumerate(left) if any(fine[step][2] < 0 for step in move.steps)}
    if any(fine[step][2] > 0 for axis in flipped for step in left[axis].steps):
        return None
    ours, theirs = _layout(shapes[0], left, groups, flipped), _layout(shapes[1], right, groups, set())
    return None if ours is None or theirs is None else (ours, theirs)


def _broken(found: Relation, shapes: tuple[Shape, Shape]) -> list[tuple[int, int, int]] | None:
    """The steps broken up at the axes of both leaves."""
    steps = list(found.steps)
    for side, shape in enumerate(shapes):
        for step, size in zip(strides(shape), shape, strict=True):
            edge = step * size
            for index, (count, ours, theirs) in enumerate(steps):
                own = abs((ours, theirs)[side])
                if own < edge < own * count:
                    if edge % own or count % (edge // own):
                        return None
                    inner = edge // own
                    steps[index : index + 1] = [(count // inner, ours * inner, theirs * inner), (inner, ours, theirs)]
                    break
    return steps


def _axes(shape: Shape, own: list[int]) -> list[Move]:
    """For every axis the steps within it, the longest first."""
    found = []
    for axis, (step, size) in enumerate(zip(strides(shape), shape, strict=True)):
        inside = [index for index, stride in enumerate(own) if step <= stride < step * size]
        found.append(Move(axis, tuple(sorted(inside, key=lambda index: -own[index]))))
    return found


def _groups(number: int, runs: list[tuple[int, ...]]) -> list[tuple[int, int]] | None:
    """The finest runs of steps such that no axis has steps in two; None where an axis' steps do not run on."""
    edges = set(range(number + 1))
    for run in runs:
        if run and run != tuple(range(run[0], run[0] + len(run))):
            return None
        edges -= set(run[1:])
    ends = sorted(edges)
    return list(pairwise(ends))


def _layout(shape: Shape, moves: list[Move], groups: list[tuple[int, int]], flipped: set[int]) -> Layout | None:
    """From a native leaf to the canonical axes: drop unit axes, flip, put axes in order, merge."""
    found: list[Layout] = []
    unit = tuple(axis - len(shape) for axis, size in enumerate(shape) if size == 1)
    kept = [move for move in moves if move.steps]
    if unit and len(unit) < len(shape):
        found.append(Squeeze(unit))
    if flipped:
        found.append(Flip(tuple(index - len(kept) for index, move in enumerate(kept) if move.axis in flipped)))
    order = sorted(range(len(kept)), key=lambda index: kept[index].steps[0])
    if order != sorted(order):
        moved = [index for index, axis in enumerate(order) if index != axis]
        swap = len(moved) == 2
        found.append(SwapAxes(*(index - len(order) for index in moved)) if swap else Transpose(tuple(order)))
    axes = [kept[index] for index in order]
    for start, stop in reversed(groups):
        inside = [index for index, move in enumerate(axes) if start <= move.steps[0] < stop]
        # From the last axis on, so that places counted from the end hold.
        for index in reversed(inside[:-1]):
            found.append(MergeAxes(index - len(axes)))
            axes.pop(index + 1)
    if not found:
        return Identity()
    return found[0] if len(found) == 1 else Chain(tuple(found))
