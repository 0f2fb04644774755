"""Which element of one leaf is which element of another."""

from collections.abc import Iterable
from dataclasses import dataclass

from equiv.infer.dataflow.strided_views import AccessPattern, common_digits


@dataclass(frozen=True)
class ElementMap:
    """A map from elements of a left leaf to elements of a right one, as strides.

    Attributes:
        starts: offset of the first element on the left and on the right.
        steps: (size, stride on the left, stride on the right), the longest left stride first.
    """

    starts: tuple[int, int]
    steps: tuple[tuple[int, int, int], ...]

    def image(self, left: int) -> int:
        """The offset on the right of an element on the left."""
        rest, right = left - self.starts[0], self.starts[1]
        for size, ours, theirs in self.steps:
            # The longest stride first, like the digits of a number. The bound is for leaves whose strides leave gaps.
            count = min(rest // ours, size - 1)
            rest, right = rest - count * ours, right + count * theirs
        return right

    @property
    def plain(self) -> bool:
        """Whether the elements of both are in the same order."""
        return all(ours == theirs for _, ours, theirs in self.steps)


def element_map(left: AccessPattern, right: AccessPattern) -> ElementMap | None:
    """The element map of two access patterns; None where no reshape, transpose or flip relates them."""
    found = common_digits(left, right)
    if found is None:
        return None
    one, two = left.start, right.start
    steps = []
    for size, ours, theirs in found:
        # Of two ways to write one map the increasing one on the left is taken: maps are compared with `==`.
        if ours < 0:
            one, two = one + (size - 1) * ours, two + (size - 1) * theirs
            ours, theirs = -ours, -theirs
        steps.append((size, ours, theirs))
    return ElementMap((one, two), tidy_steps(steps))


def tidy_steps(steps: Iterable[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Steps with the longest left stride first, those merged that are one step in both leaves."""
    tidied: list[tuple[int, int, int]] = []
    for size, ours, theirs in sorted(steps, key=lambda step: -step[1]):
        last = tidied[-1] if tidied else (0, 0, 0)
        if last[1:] == (size * ours, size * theirs):
            tidied[-1] = (last[0] * size, ours, theirs)
        else:
            tidied.append((size, ours, theirs))
    return tuple(tidied)


def is_part_of(whole: ElementMap, part: ElementMap) -> bool:
    """Whether an element map of parts agrees with that of the whole leaves."""
    one, two = part.starts
    if whole.image(one) != two:
        return False
    # Within one step of the part, the maps can come apart where a step of the whole begins.
    return all(
        whole.image(one + count * ours) == two + count * theirs
        for size, ours, theirs in part.steps
        for count in {1, size - 1, *(longer // ours for _, longer, _ in whole.steps if ours < longer < size * ours)}
    )
