"""The use of leaves by operations, and for each part of a value the latest uses that it depends on.

Sums and products are flattened: `(x W + h V) + b` and `x W + (h V + b)` give the bias the same position.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from equiv.infer.dataflow.strided_views import AccessPattern, StridedView, access_pattern
from equiv.programs.primitives import ADDITIONS

ADD, MULTIPLY, CONTRACT, OTHER = "add", "multiply", "contract", "other"
"""How an operation uses a leaf: in a sum, in a product, contracted (or looked up), or in any other way."""


# Signs and reciprocals do not count: a port with `x - b` has to be mapped too, so that the run can refute it.
GROUP_OF_PRIMITIVE = {**dict.fromkeys((*ADDITIONS, "sub"), ADD), "mul": MULTIPLY, "div": MULTIPLY}

# Casts are among them: ports of different precision have equal places, and the checks report what the cast does.
PLACE_PRESERVING = frozenset(("neg", "convert_element_type", "copy", "real", "reduce_precision"))
"""Unary operations that do not change a value's position in the program."""


class LeafOperand(NamedTuple):
    """A leaf in a value that depends on leaves only.

    Attributes:
        node: its block.
        view: its strided view; None where the value is computed from it.
        transformed: whether a function other than a sum or product was applied, as the square root of a variance.
    """

    node: int
    view: StridedView | None
    transformed: bool = False


@dataclass(frozen=True, slots=True)
class ValuePart:
    """A part of a value. Sets of uses are bit sets in an integer.

    Attributes:
        reaching: the latest uses that it depends on.
        group: `add` or `multiply`, if it is a sum or product with leaves as operands; else empty.
        operands: uses of these leaves.
        leaves: its leaves, if it depends on leaves only.
        is_activation: whether it depends on the batch or on a loop's carry.
        shift: the literal that the program adds to the sum or the leaf; nan where that is unclear.
        number: its value, if it is a scalar literal.
    """

    # Integers as bit sets: behind a residual stream each value depends on many uses, and a union is one `|`.
    reaching: int = 0
    group: str = ""
    operands: int = 0
    leaves: tuple[LeafOperand, ...] = ()
    is_activation: bool = False
    shift: float = 0.0
    number: float | None = None


CONSTANT_PART = ValuePart()


@dataclass
class LeafUses:
    """Every use of a leaf or input, in the order of the program.

    Attributes:
        nodes: the used node (block or input) of each use.
        labels: how it is used.
        accesses: its access pattern there.
        shifts: literal that the program adds to it.
        paths: the equation.
        operations: the primitive that uses it.
        predecessors: uses directly before it.
        carry_predecessors: uses before it through a loop's carry.
        group_operands: earlier operands of the sum or product that it joins.
        closed: uses whose sum or product is complete.
        second_pass: whether a loop's body is being walked a second time.
        path: the current equation.
        operation: its primitive.
    """

    nodes: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    accesses: list[AccessPattern | None] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    paths: list[tuple[Any, ...]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    predecessors: list[int] = field(default_factory=list)
    carry_predecessors: list[int] = field(default_factory=list)
    group_operands: list[int] = field(default_factory=list)
    closed: int = 0
    second_pass: bool = False
    path: tuple[Any, ...] = ()
    operation: str = ""
    numbers: dict[Any, int] = field(default_factory=dict)

    def record(self, node: int, label: str, viewed: AccessPattern | None, cell: Any = (), shift: float = 0.0) -> int:
        """Record the use of a node at the current equation; return it as a bit."""
        # The body of a loop is walked twice. The second walk has to
        # find the uses of the first and only add the carry's links.
        key = (self.path, node, cell)
        if key not in self.numbers:
            self.numbers[key] = len(self.nodes)
            self.nodes.append(node)
            self.labels.append(label)
            self.accesses.append(viewed)
            self.shifts.append(shift)
            self.paths.append(self.path)
            self.operations.append(self.operation)
            self.predecessors.append(0)
            self.carry_predecessors.append(0)
            self.group_operands.append(0)
        return 1 << self.numbers[key]

    def add_predecessors(self, uses: int, before: int) -> None:
        """Add predecessors to some uses."""
        for number in bit_positions(uses):
            if self.second_pass:
                # All that the second walk adds has come through the carry.
                # As plain predecessors these links would be a cycle.
                self.carry_predecessors[number] |= before & ~self.predecessors[number]
            else:
                self.predecessors[number] |= before

    def close_group(self, part: ValuePart) -> int:
        """Close a sum or product: its operands follow the uses that it depends on. Return all these uses."""
        # Operands of a sum have no order: each gets the predecessors of the whole sum, once it is complete. A sum
        # that two operations read is closed by the first. In a second walk it is closed again, for its carry.
        opened = part.operands if self.second_pass else part.operands & ~self.closed
        self.add_predecessors(opened, part.reaching)
        for number in bit_positions(opened):
            self.shifts[number] = self.shifts[number] or part.shift
        self.closed |= part.operands
        return part.reaching | part.operands

    def record_leaves(
        self, leaves: Iterable[LeafOperand], label: str, cell: Any = (), shift: float = 0.0, first: Any = ()
    ) -> int:
        """Record uses of several leaves; return their bit set. `first`: leading axes of the access patterns."""
        found = 0
        for held in leaves:
            viewed = None if held.view is None else access_pattern(held.view, first)
            found |= self.record(
                held.node, f"{label} of a function" if held.transformed else label, viewed, cell, shift
            )
        return found


def bit_positions(number: int) -> Iterable[int]:
    """Iterate over the indices of set bits."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def add_shift(part: ValuePart, shift: float) -> ValuePart:
    """Add a number to a sum or leaf."""
    return replace(part, shift=part.shift + shift)


def combine_elementwise(
    uses: LeafUses, name: str, parts: list[ValuePart], cell: Any = (), first: Any = ()
) -> ValuePart:
    """The result of an elementwise operation; `first`: the order of axes in a leaf's access pattern."""
    activations = [part for part in parts if part.is_activation]
    leaves = tuple(leaf for part in parts if not part.is_activation for leaf in part.leaves)
    kind = GROUP_OF_PRIMITIVE.get(name)
    number = next((part.number for part in parts if not (part.is_activation or part.leaves)), 0.0)
    if not activations:
        return _combine_leaves(name, parts, leaves, kind, number)
    if name in PLACE_PRESERVING:
        return activations[0]
    if kind is None:
        return combine_unknown(uses, parts, cell)
    if len(activations) == 1 and not leaves:
        return _combine_number(activations[0], name, kind, number)
    reaching = operands = 0
    shift = 0.0
    for part in activations:
        # A sum within a sum is left open and its operands join this one; a product within a sum is complete here.
        inside = part.group == kind
        reaching |= part.reaching if inside else uses.close_group(part)
        operands |= part.operands if inside else 0
        shift += part.shift if inside else 0.0
    shifts = [part.shift for part in parts if part.leaves and not part.is_activation]
    taken = uses.record_leaves(leaves, kind, cell, shifts[0] if len(shifts) == 1 else 0.0, first)
    for number in bit_positions(taken):
        # Which operand came first is style, so that it is not a predecessor. It
        # helps only where the ports differ, see `colour_by_known_operands`.
        uses.group_operands[number] |= reaching | operands
    return ValuePart(reaching, kind, operands | taken, is_activation=True, shift=shift)


def _combine_leaves(
    name: str, parts: list[ValuePart], leaves: Any, kind: str | None, number: float | None
) -> ValuePart:
    """The result of an elementwise operation on leaves and numbers only."""
    if not leaves:
        return replace(parts[0], number=None) if name not in PLACE_PRESERVING else parts[0]
    views = [part for part in parts if part.leaves]
    if len(views) > 1 or len(leaves) > 1:
        # Such as scale * rsqrt(variance): elementwise, so that each leaf keeps its own
        # view. A number that was added to one of them no longer shifts the result.
        return ValuePart(leaves=leaves)
    if kind == ADD and len(parts) == 2:
        if name == "sub":
            # `1 - leaf` changes the sign as well, which no shift does.
            number = -number if parts[0].leaves and number is not None else None
        return add_shift(views[0], math.nan if number is None else number)
    if name in PLACE_PRESERVING or kind:
        return views[0]
    # A number that is added before a function, as the epsilon in
    # sqrt(variance + epsilon), cannot be moved into the leaf.
    return ValuePart(leaves=(leaves[0]._replace(transformed=True),), shift=math.nan if views[0].shift else 0.0)


def _combine_number(part: ValuePart, name: str, kind: str, number: float | None) -> ValuePart:
    """The result of adding or multiplying a literal: the position in the program does not change."""
    if kind == MULTIPLY:
        return replace(part, shift=math.nan if part.shift else 0.0)
    if part.group != ADD or number == 0.0:
        return part
    return add_shift(part, math.nan if number is None or name == "sub" else number)


def combine_unknown(uses: LeafUses, parts: Iterable[ValuePart], cell: Any = ()) -> ValuePart:
    """The result of an operation that is neither sum nor product, or that is unknown."""
    activations = [part for part in parts if part.is_activation]
    leaves = [held for part in parts if not part.is_activation for held in part.leaves]
    if not activations:
        # Nothing is known of an unlisted operation, not even that it keeps the elements in order.
        return ValuePart(leaves=tuple(LeafOperand(held.node, None, True) for held in leaves))
    reaching = 0
    for part in activations:
        reaching |= uses.close_group(part)
    if not leaves:
        return ValuePart(reaching, is_activation=True)
    taken = uses.record_leaves(leaves, OTHER, cell)
    # The result depends on all of `reaching`, but through `taken`: only the latest uses are kept.
    uses.add_predecessors(taken, reaching)
    return ValuePart(taken, is_activation=True)


def combine_contraction(
    uses: LeafUses, one: ValuePart, two: ValuePart, firsts: tuple[Any, Any], cell: Any = ()
) -> ValuePart:
    """The result of a contraction (`dot_general`, convolution) of two parts.

    Args:
        uses: uses recorded so far.
        one: a part of the first operand.
        two: a part of the second.
        firsts: for each operand the axes that come first in a leaf's access pattern.
        cell: which part of the result it belongs to.
    """
    one, two = _start_of_recurrence(one), _start_of_recurrence(two)
    if one.is_activation and two.is_activation:
        return ValuePart(uses.close_group(one) | uses.close_group(two), is_activation=True)
    if not one.is_activation and not two.is_activation:
        # A product of leaves, as in low-rank adapters: its elements
        # are sums over elements of both, and no view of either.
        return ValuePart(leaves=tuple(held._replace(view=None) for held in (*one.leaves, *two.leaves)))
    activation, fixed, first = (one, two, firsts[1]) if one.is_activation else (two, one, firsts[0])
    if not fixed.leaves:
        return ValuePart(uses.close_group(activation), is_activation=True)
    taken = uses.record_leaves(fixed.leaves, CONTRACT, cell, fixed.shift, first)
    uses.add_predecessors(taken, uses.close_group(activation))
    return ValuePart(taken, is_activation=True)


def _start_of_recurrence(part: ValuePart) -> ValuePart:
    """Zeros as an activation that depends on nothing; other parts unchanged."""
    # The state before the first step. A scan carries it as an activation, so that
    # in a loop of Python, too, the kernel that it meets is contracted and not added.
    return ValuePart(is_activation=True) if part.number == 0.0 and not part.leaves else part


def merge_parts(uses: LeafUses, parts: list[ValuePart], total: bool) -> ValuePart:
    """Merge parts of one value into one part; `total`: into their sum."""
    # Parts of an activation that were cut but never treated differently: no operation, so that no group is closed.
    if all(part == parts[0] for part in parts):
        return parts[0]
    if not total or not any(part.is_activation for part in parts):
        return combine_unknown(uses, parts)
    found = parts[0]
    for part in parts[1:]:
        found = combine_elementwise(uses, "add", [found, part])
    return found
