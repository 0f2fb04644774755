"""The result of matching: pairs of leaves with their layouts and evidence, and unpaired leaves."""

from dataclasses import dataclass

from equiv.backends.base import Port
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.strided_views import Shape
from equiv.infer.matching.match import Evidence
from equiv.infer.matching.relations import ElementMap

Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LeafPair:
    """Two corresponding leaves, or parts of leaves.

    Attributes:
        left: native leaf of the left port.
        right: native leaf of the right port.
        shapes: of each whole leaf; an axis whose parts recur is two: how often they do, and the period.
        bounds: the part of each leaf, (start, stop) on every axis of that shape.
        element_map: which element is which; None where the uses in the programs do not determine it.
        shift: number to add to the left leaf's values, because a program adds it as a literal.
        evidence: how the pair was found.
        interchange_group: number of its group of interchangeable leaves; 0 for none.
        operation: the primitive that uses the left leaf.
    """

    left: NativeKey
    right: NativeKey
    shapes: tuple[Shape, Shape]
    bounds: tuple[Bounds, Bounds]
    element_map: ElementMap | None
    shift: float
    evidence: Evidence
    interchange_group: int = 0
    operation: str = ""


@dataclass(frozen=True)
class UnpairedLeaf:
    """A leaf without a pair.

    Attributes:
        side: 0 for the left port, 1 for the right one.
        key: native leaf.
        reason: why it has none.
        dead: whether no output in eval mode depends on it.
    """

    side: int
    key: NativeKey
    reason: str
    dead: bool


@dataclass(frozen=True)
class Proposal:
    """The pairs of two ports, as inferred.

    Attributes:
        ports: both ports.
        pairs: in the order of the left program.
        unpaired: leaves without a pair.
        name_conflicts: indices of two or more pairs each, whose names suggest another pairing.
        notes: further messages for the user.
    """

    ports: tuple[Port, Port]
    pairs: tuple[LeafPair, ...]
    unpaired: tuple[UnpairedLeaf, ...]
    name_conflicts: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
