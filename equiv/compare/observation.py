"""Nouns between running and checking: what ports gave on the probes, and how much rounding explains. Numpy only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from equiv.core.case import Case
from equiv.core.leaves import LeafTable, NativeKey
from equiv.programs.program import Draw
from equiv.programs.prover.proof import Proofs

Outputs = Mapping[str, np.ndarray]
"""`program: output` to array."""


@dataclass(frozen=True)
class Sample:
    """The outputs of one port on one probe.

    Attributes:
        native: as the port computes them.
        lifted: the same programs in float64; None: there is no lifted run.
    """

    native: Outputs
    lifted: Outputs | None


@dataclass(frozen=True)
class Observed:
    """Everything seen of one port.

    Attributes:
        table: its leaf table.
        random: number of leaves of random state, which are replayed and not compared.
        samples: probe name to outputs. `cold` starts training from the library's own fresh state.
        draws: program to the draws it makes.
        native_paths: native path to shape, as the library prints them.
        unlifted: why there is no lifted run; empty where there is one.
        reused: places where two independent draws came out alike without replay.
        drawn: how many independent draws that was seen on.
    """

    table: LeafTable
    random: int
    samples: Mapping[str, Sample]
    draws: Mapping[str, tuple[Draw, ...]]
    native_paths: Mapping[NativeKey, tuple[int, ...]]
    unlifted: str = ""
    reused: tuple[str, ...] = ()
    drawn: int = 0

    def table_collection(self, key: NativeKey) -> str:
        """`params` or `state`, for one of the port's native leaves."""
        return next(leaf.spec.collection for leaf in self.table.leaves if leaf.key == key)


@dataclass(frozen=True)
class Noise:
    """What rounding does to the reference.

    Attributes:
        native: probe to output to the largest change when each input moves by one ulp of its dtype.
        lifted: likewise in float64.
        depth: output to rounded operations in a row.
    """

    native: Mapping[str, Mapping[str, float]]
    lifted: Mapping[str, Mapping[str, float]]
    depth: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """One candidate beside the reference: all that a check sees."""

    case: Case
    reference: Observed
    candidate: Observed
    noise: Noise
    proofs: Proofs = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        """Backend of the reference and of the candidate."""
        return self.reference.table.backend, self.candidate.table.backend

    @property
    def warm(self) -> tuple[str, ...]:
        """Probes with given state and inputs of the usual size; only one where every output is proved."""
        return tuple(name for name in self.reference.samples if name not in ("wide", "cold"))
