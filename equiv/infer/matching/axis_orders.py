"""The element maps that a pair of leaves could have: which axis, or part of an axis, of one is which of the other.

The order in which an operation uses a leaf says which element is which where both ports order their activations in the
same way.
One may keep (heads, size) and the other (size, heads). Then only the sizes say which axis is which, or the outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from math import prod

from equiv.infer.dataflow.axis_factors import Factors, factorings
from equiv.infer.dataflow.port_graph import PortGraph
from equiv.infer.dataflow.strided_views import AccessPattern, Digit, Shape, merge_digits, row_major_strides
from equiv.infer.matching.by_gradient import order_of_use
from equiv.infer.matching.proposal import Bounds
from equiv.infer.matching.relations import ElementMap, tidy_steps

MAX_ORDERS = 24
"""Largest number of element maps of one pair that are tried."""

MAX_SPELLINGS = 12
"""Largest number of ways to split all axes of one leaf."""

Step = tuple[int, int, int]


@dataclass(frozen=True)
class AxisOrder:
    """One element map of a pair, in two groups of steps.

    Attributes:
        contracted: steps along loops and contracted axes.
        rest: all other steps.
    """

    contracted: tuple[Step, ...]
    rest: tuple[Step, ...]

    def element_map(self, starts: tuple[int, int]) -> ElementMap:
        """The element map of parts that begin at these places."""
        return ElementMap(starts, tidy_steps((*self.contracted, *self.rest)))


@dataclass(frozen=True)
class LeafSide:
    """One leaf, or part of one, of a pair.

    Attributes:
        shape: of the whole leaf.
        bounds: the part.
        access: how it is used; None where that is no view.
        factors: how its program splits axes.
    """

    shape: Shape
    bounds: Bounds
    access: AccessPattern | None
    factors: Mapping[int, tuple[Factors, ...]]

    @property
    def start(self) -> int:
        """Place of the first element in memory."""
        strides = row_major_strides(self.shape)
        return sum(begin * stride for (begin, _), stride in zip(self.bounds, strides, strict=True))

    @property
    def size(self) -> int:
        """Number of elements of the part."""
        return prod(stop - begin for begin, stop in self.bounds)

    def is_contracted(self, stride: int) -> bool:
        """Whether steps of this stride are along a loop or a contracted axis."""
        return any(digit.stride <= stride < digit.size * digit.stride for digit in self.contracted_digits())

    def contracted_digits(self) -> list[Digit]:
        """The part of the access pattern along loops and contracted axes."""
        found, left = [], 1 if self.access is None else self.access.first
        for digit in () if self.access is None else self.access.digits:
            if left <= 1:
                break
            # The digits of both groups may have been merged to one: its slow part is contracted.
            size = min(digit.size, left)
            found.append(Digit(size, digit.stride * (digit.size // size)))
            left //= size
        return found

    def spellings(self) -> Iterator[tuple[Digit, ...]]:
        """The digits of the part, with its axes split in every way that the program splits such axes."""
        strides = row_major_strides(self.shape)
        sizes = [stop - begin for begin, stop in self.bounds]
        for ways in product(*(factorings(size, self.factors) for size in sizes)):
            digits = []
            for way, stride in zip(ways, strides, strict=True):
                inner = prod(way)
                for size in way:
                    inner //= size
                    digits.append(Digit(size, stride * inner))
            yield tuple(digit for digit in digits if digit.size > 1)


def possible_orders(sides: tuple[LeafSide, LeafSide], default: ElementMap | None) -> tuple[AxisOrder, ...]:
    """The element maps of a pair that sizes and contracted axes allow, the likeliest first.

    Args:
        sides: both leaves.
        default: what the order of use says.
    """
    # A flip is seen in the order of use only, and sizes do not say which axes are flipped.
    if default is not None and any(theirs < 0 for _, _, theirs in default.steps):
        return ()
    starts = sides[0].start, sides[1].start
    found: dict[ElementMap, AxisOrder] = {}
    for order in islice(_orders(sides), 8 * MAX_ORDERS):
        found.setdefault(order.element_map(starts), order)
    ranked = list(found.values())[:MAX_ORDERS]
    if default is not None and default.starts == starts:
        usual = found.get(default) or _split_default(default, sides)
        if usual is not None:
            # Where no way to split the axes gives what the order of use says, sizes are better evidence.
            others = [order for order in ranked if order != usual]
            ranked = [usual, *others] if default in found else [*others, usual]
    return tuple(ranked)


def order_of_size(graph: PortGraph, node: int) -> AccessPattern | None:
    """The order of use with a leaf's axes, as far as its program splits them, in the order of their sizes.

    Within contracted axes and within the rest: what both ports have in common where their activations are ordered
    otherwise. None where no use is a view of all elements.
    """
    access = order_of_use(graph, node)
    if access is None or any(digit.stride < 0 for digit in access.digits):
        return access
    side = LeafSide(graph.shape(node), graph.blocks[node].bounds, access, graph.axis_factors)
    finest = max(islice(side.spellings(), MAX_SPELLINGS), key=len)
    groups = _split_groups(side, finest, grouped=True)
    digits = [digit for some in groups for digit in sorted(some, key=lambda digit: (-digit.size, -digit.stride))]
    return AccessPattern(merge_digits(digits), access.start, access.first)


def _orders(sides: tuple[LeafSide, LeafSide]) -> Iterator[AxisOrder]:
    grouped = _comparable(sides)
    for ours, theirs in product(*(list(islice(side.spellings(), MAX_SPELLINGS)) for side in sides)):
        left, right = (_split_groups(side, some, grouped) for side, some in zip(sides, (ours, theirs), strict=True))
        for contracted, rest in product(_bijections(left[0], right[0]), _bijections(left[1], right[1])):
            yield AxisOrder(contracted, rest)


def _comparable(sides: tuple[LeafSide, LeafSide]) -> bool:
    """Whether both uses are views of all elements, with as many of them along contracted axes."""
    one, two = (side.access if side.access is not None and side.access.size == side.size else None for side in sides)
    return one is not None and two is not None and one.first == two.first


def _split_groups(side: LeafSide, digits: Sequence[Digit], grouped: bool) -> tuple[list[Digit], list[Digit]]:
    if not grouped:
        return [], list(digits)
    inside = [digit for digit in digits if side.is_contracted(digit.stride)]
    return inside, [digit for digit in digits if digit not in inside]


def _bijections(left: Sequence[Digit], right: Sequence[Digit]) -> Iterator[tuple[Step, ...]]:
    """Every assignment of digits of one size to digits of that size, in tidied steps."""
    sizes = sorted({digit.size for digit in left})
    if sorted(digit.size for digit in left) != sorted(digit.size for digit in right):
        return
    ways = []
    for size in sizes:
        ours, theirs = ([digit.stride for digit in some if digit.size == size] for some in (left, right))
        ways.append([tuple(zip([size] * len(ours), ours, order, strict=True)) for order in permutations(theirs)])
    for way in product(*ways):
        yield tidy_steps(step for some in way for step in some)


def _split_default(default: ElementMap, sides: tuple[LeafSide, LeafSide]) -> AxisOrder | None:
    """The groups of an element map's steps; None where a step is in both."""
    if not _comparable(sides):
        return AxisOrder((), default.steps)
    edges = {edge for digit in sides[0].contracted_digits() for edge in (digit.stride, digit.size * digit.stride)}
    steps = []
    for size, ours, theirs in default.steps:
        inside = sorted((edge for edge in edges if ours < edge < ours * size), reverse=True)
        for edge in inside:
            if edge % ours or size % (edge // ours):
                return None
            steps.append((size // (edge // ours), edge, theirs * (edge // ours)))
            size = edge // ours
        steps.append((size, ours, theirs))
    contracted = [step for step in steps if sides[0].is_contracted(step[1])]
    return AxisOrder(tidy_steps(contracted), tidy_steps(step for step in steps if step not in contracted))
