"""What is known of a value, or of a part of it: the uses of leaves that reached it without passing another leaf.

Sums and products are one, however they are grouped: `(x W + h V) + b` and `x W + (h V + b)` give the bias one place.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from equiv.infer.dataflow.strided_views import Form, View, form

ADD, MULTIPLY, CONTRACT, OTHER = "add", "multiply", "contract", "other"
"""How an operation takes a leaf in: into a sum, into a product, summed over (or looked up in), any other way."""


GROUPS = {"add": ADD, "add_any": ADD, "sub": ADD, "mul": MULTIPLY, "div": MULTIPLY}


ALONE = frozenset(("neg", "convert_element_type", "copy", "real", "reduce_precision"))
"""Operations of one value that leave its place in the program."""


class Held(NamedTuple):
    """A leaf in a value that is made of leaves alone.

    Attributes:
        node: which block.
        view: how it is viewed; None where it is computed with.
        bent: whether a function other than a sum or product has been applied, as to a variance under its root.
    """

    node: int
    view: View | None
    bent: bool = False


@dataclass(frozen=True, slots=True)
class Atom:
    """A part of a value. Sets of uses are bits of an integer.

    Attributes:
        before: uses that reached it.
        group: the sum or product that it is, where leaves have joined one; else empty.
        joined: uses of the leaves that joined, in whatever order.
        leaves: of a value made of leaves alone: which.
        moving: whether it depends on the batch, or on what a loop carries.
        shift: the number added to the sum, or to the leaf, by the program's text; nan where that is unclear.
        number: its value, where it is a number in the program's text.
    """

    before: int = 0
    group: str = ""
    joined: int = 0
    leaves: tuple[Held, ...] = ()
    moving: bool = False
    shift: float = 0.0
    number: float | None = None


CONSTANT = Atom()


@dataclass
class Uses:
    """Every use of a leaf or input, in the order of the program.

    Attributes:
        nodes: use to the node (block of a leaf, or input) that is used.
        labels: how it is taken in.
        forms: how it is viewed there.
        shifts: number added to it by the program's text.
        paths: where in the program it stands.
        operations: the primitive that takes it in.
        incoming: uses that come right before it.
        back: those that come before it by way of a loop's carry.
        beside: those that are in a sum or product when it joins.
        settled: uses whose sum or product is complete.
        again: whether a loop's body is walked a second time.
        path: where in the program we are.
        operation: the primitive there.
    """

    nodes: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    forms: list[Form | None] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    paths: list[tuple[Any, ...]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    incoming: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    settled: int = 0
    again: bool = False
    path: tuple[Any, ...] = ()
    operation: str = ""
    known: dict[Any, int] = field(default_factory=dict)

    def use(self, node: int, label: str, viewed: Form | None, cell: Any = (), shift: float = 0.0) -> int:
        """The use of a node at the equation where we are, as a bit."""
        key = (self.path, node, cell)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(node)
            self.labels.append(label)
            self.forms.append(viewed)
            self.shifts.append(shift)
            self.paths.append(self.path)
            self.operations.append(self.operation)
            self.incoming.append(0)
            self.back.append(0)
            self.beside.append(0)
        return 1 << self.known[key]

    def arrive(self, uses: int, before: int) -> None:
        """Say what comes right before some uses."""
        for number in bits(uses):
            if self.again:
                self.back[number] |= before & ~self.incoming[number]
            else:
                self.incoming[number] |= before

    def settle(self, atom: Atom) -> int:
        """Close a sum or product: what joined it is placed after what it was made of."""
        fresh = atom.joined if self.again else atom.joined & ~self.settled
        self.arrive(fresh, atom.before)
        for number in bits(fresh):
            self.shifts[number] = self.shifts[number] or atom.shift
        self.settled |= atom.joined
        return atom.before | atom.joined

    def take(self, leaves: Iterable[Held], label: str, cell: Any = (), shift: float = 0.0, first: Any = ()) -> int:
        """Uses of several leaves at once, as bits; `first`: axes that come first in a leaf's form."""
        found = 0
        for held in leaves:
            viewed = None if held.view is None else form(held.view, first)
            found |= self.use(held.node, f"{label} of a function" if held.bent else label, viewed, cell, shift)
        return found


def bits(number: int) -> Iterable[int]:
    """The places of the bits that are set."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def moved(atom: Atom, shift: float) -> Atom:
    """A sum, or a leaf, with a number added."""
    return replace(atom, shift=atom.shift + shift)


def elementwise(uses: Uses, name: str, atoms: list[Atom], cell: Any = (), first: Any = ()) -> Atom:
    """One operation, place by place, on parts of values; `first`: the order of axes in the form of a leaf."""
    movers = [atom for atom in atoms if atom.moving]
    leaves = tuple(leaf for atom in atoms if not atom.moving for leaf in atom.leaves)
    kind = GROUPS.get(name)
    number = next((atom.number for atom in atoms if not (atom.moving or atom.leaves)), 0.0)
    if not movers:
        return _fixed(name, atoms, leaves, kind, number)
    if name in ALONE:
        return movers[0]
    if kind is None:
        return other(uses, atoms, cell)
    if len(movers) == 1 and not leaves:
        return _with_number(movers[0], name, kind, number)
    before = joined = 0
    shift = 0.0
    for atom in movers:
        inside = atom.group == kind
        before |= atom.before if inside else uses.settle(atom)
        joined |= atom.joined if inside else 0
        shift += atom.shift if inside else 0.0
    shifts = [atom.shift for atom in atoms if atom.leaves and not atom.moving]
    taken = uses.take(leaves, kind, cell, shifts[0] if len(shifts) == 1 else 0.0, first)
    for number in bits(taken):
        uses.beside[number] |= before | joined
    return Atom(before, kind, joined | taken, moving=True, shift=shift)


def _fixed(name: str, atoms: list[Atom], leaves: Any, kind: str | None, number: float | None) -> Atom:
    """An operation without the batch: on leaves and numbers."""
    if not leaves:
        return replace(atoms[0], number=None) if name not in ALONE else atoms[0]
    views = [atom for atom in atoms if atom.leaves]
    if len(views) > 1 or len(leaves) > 1:
        return Atom(leaves=leaves)
    if kind == ADD and name != "sub" and len(atoms) == 2:
        return moved(views[0], math.nan if number is None else number)
    if name in ALONE or kind:
        return views[0]
    return Atom(leaves=(leaves[0]._replace(bent=True),), shift=math.nan if views[0].shift else 0.0)


def _with_number(atom: Atom, name: str, kind: str, number: float | None) -> Atom:
    """A sum or product with a number of the program's text: it stays where it is."""
    if kind == MULTIPLY:
        return replace(atom, shift=math.nan if atom.shift else 0.0)
    if atom.group != ADD or number == 0.0:
        return atom
    return moved(atom, math.nan if number is None or name == "sub" else number)


def other(uses: Uses, atoms: Iterable[Atom], cell: Any = ()) -> Atom:
    """What an operation gives that is neither sum nor product, or of which nothing is known."""
    movers = [atom for atom in atoms if atom.moving]
    leaves = [held for atom in atoms if not atom.moving for held in atom.leaves]
    if not movers:
        return Atom(leaves=tuple(Held(held.node, None, True) for held in leaves))
    before = 0
    for atom in movers:
        before |= uses.settle(atom)
    if not leaves:
        return Atom(before, moving=True)
    taken = uses.take(leaves, OTHER, cell)
    uses.arrive(taken, before)
    return Atom(taken, moving=True)


def contract(uses: Uses, one: Atom, two: Atom, firsts: tuple[Any, Any], cell: Any = ()) -> Atom:
    """A product summed over some axes (`dot_general`, convolution) of two parts.

    Args:
        uses: so far.
        one: a part of the first operand.
        two: a part of the second.
        firsts: for each operand its axes that come first in the form of a leaf.
        cell: which part of the result it belongs to.
    """
    if one.moving and two.moving:
        return Atom(uses.settle(one) | uses.settle(two), moving=True)
    if not one.moving and not two.moving:
        return Atom(leaves=tuple(held._replace(view=None) for held in (*one.leaves, *two.leaves)))
    mover, fixed, first = (one, two, firsts[1]) if one.moving else (two, one, firsts[0])
    if not fixed.leaves:
        return Atom(uses.settle(mover), moving=True)
    taken = uses.take(fixed.leaves, CONTRACT, cell, fixed.shift, first)
    uses.arrive(taken, uses.settle(mover))
    return Atom(taken, moving=True)


def merged(uses: Uses, atoms: list[Atom], total: bool) -> Atom:
    """Parts of one value as one part; `total`: their sum."""
    if all(atom == atoms[0] for atom in atoms):
        return atoms[0]
    if not total or not any(atom.moving for atom in atoms):
        return other(uses, atoms)
    found = atoms[0]
    for atom in atoms[1:]:
        found = elementwise(uses, "add", [found, atom])
    return found
