"""Nouns of what a case costs in each library. No jax is imported here."""

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["trace", "lower", "compile", "first call", "step", "dispatch", "device"]

PHASES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call", "step", "dispatch", "device")
"""In the order in which they happen; `dispatch` and `device` are the two parts of a steady `step`."""


@dataclass(frozen=True)
class Ratio:
    """A paired ratio of times, numerator / denominator, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """One phase of one program of one port.

    Attributes:
        backend: whose program.
        program: `forward`, `gradients`, `train step`.
        runner: how it is called as the guide writes it: `jax.jit`, `nnx.jit`, `split + jax.jit`.
        phase: what is timed.
        rounds: how often it was measured.
        p50: median, seconds.
        p90: seconds.
        p99: seconds.
        ratio: divided by the reference's time of the same phase and program; None for the reference itself.
        control: the reference divided by itself, by the same method in the same run; None where not measured.
        naive: the same ratio from back-to-back timing, for comparison; None where not measured.
        claim: what may be said: `slower`, `faster`, `no difference beyond what the control allows`; empty for the
            reference.
    """

    backend: str
    program: str
    runner: str
    phase: Phase
    rounds: int
    p50: float
    p90: float
    p99: float
    ratio: Ratio | None = None
    control: Ratio | None = None
    naive: Ratio | None = None
    claim: str = ""


@dataclass(frozen=True)
class ProgramCost:
    """What XLA says of one compiled program.

    Attributes:
        backend: whose program.
        program: `forward`, `gradients`, `train step`.
        runner: as in `Timing`.
        equations: of the jaxpr, loop bodies counted once.
        instructions: of the optimised HLO.
        flops: by XLA's cost analysis; None where the platform gives none.
        bytes: accessed, by the same.
        peak_bytes: of memory, by XLA's memory analysis.
        retraces: traces beyond the first when called again with the same shapes.
        identical: whether its optimised program is the reference's after canonicalisation: then any gap is host-side.
    """

    backend: str
    program: str
    runner: str
    equations: int
    instructions: int
    flops: float | None = None
    bytes: float | None = None
    peak_bytes: int | None = None
    retraces: int = 0
    identical: bool = False


@dataclass(frozen=True)
class Growth:
    """One phase at one depth of a model whose layers are written out or scanned; seconds are medians."""

    backend: str
    form: Literal["unrolled", "scanned"]
    depth: int
    phase: Phase
    seconds: float
    equations: int


@dataclass(frozen=True)
class CaseCosts:
    """What one case costs.

    Attributes:
        timings: measured.
        programs: counted.
        growth: with depth, where the case is measured so.
        withheld: candidate to the reason why nothing of it is timed (a refuted port).
        seconds: how long measuring took.
    """

    timings: tuple[Timing, ...] = ()
    programs: tuple[ProgramCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    withheld: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
