"""Nouns of a proposal: which leaf of one port is which of the other, how it lies there, and how that is known."""

from dataclasses import dataclass

from equiv.backends.base import Port
from equiv.core.leaves import NativeKey
from equiv.infer.matching.match import Evidence
from equiv.infer.matching.relations import Relation

Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pair:
    """Two leaves, or parts of leaves, that are the same.

    Attributes:
        left: native leaf of the left port.
        right: native leaf of the right port.
        bounds: the part of either, first and one past the last index on every axis.
        relation: which element is which; None where the way the programs use them does not tell.
        shift: what has to be added to the left leaf's values, because a program's text does it on the other side.
        evidence: how it is known.
        alike: number of the group of leaves with which it could as well change places; 0 for none.
        operation: the primitive that takes the left leaf in.
    """

    left: NativeKey
    right: NativeKey
    bounds: tuple[Bounds, Bounds]
    relation: Relation | None
    shift: float
    evidence: Evidence
    alike: int = 0
    operation: str = ""


@dataclass(frozen=True)
class Left:
    """A leaf without a pair.

    Attributes:
        side: 0 for the left port, 1 for the right one.
        key: native leaf.
        reason: why.
        dead: whether no output in eval mode depends on it.
    """

    side: int
    key: NativeKey
    reason: str
    dead: bool


@dataclass(frozen=True)
class Proposal:
    """What inference found.

    Attributes:
        ports: both ports.
        pairs: in the order of the left program.
        left: leaves without a pair.
        crossed: places of pairs whose names say the opposite of what the programs say.
        notes: what else has to be said.
    """

    ports: tuple[Port, Port]
    pairs: tuple[Pair, ...]
    left: tuple[Left, ...]
    crossed: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]
