"""Nouns of what a case costs in each library. No jax is imported here."""

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["trace", "lower", "compile", "first call", "step", "dispatch", "device"]


PHASES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call", "step", "dispatch", "device")
"""In the order in which they happen.

`first call` is the first run of a program that has been compiled: what a user waits for is the sum of the first four.
`device` and `dispatch` are the parts of a steady `step`: what the compiled program takes beyond an empty program of as
many arrays, and all the rest, on the host.
"""


SLOWER, FASTER, NO_DIFFERENCE = "slower", "faster", "no difference beyond what the control allows"


TOO_FEW = "too few rounds"
"""What a `Timing` claims of a candidate; the last: there is a ratio, and no claim."""


@dataclass(frozen=True)
class Ratio:
    """A paired ratio of times, numerator / denominator, with its 99 % bootstrap interval."""

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
        rounds: interleaved rounds that the ratio rests on.
        p50: median of all calls, seconds. Of `dispatch` and `device`, which are differences, it is not positive where
            they are lost in the noise of a `step`.
        p90: seconds.
        p99: seconds.
        ratio: divided by the reference's time of the same phase and program, round by round; None for the reference
            itself, and where a time is too small to be told from none (a `dispatch` below the noise of a `step`).
        control: the reference divided by itself, by the same method in the same run; None where not measured.
        naive: the same ratio from back-to-back timing, for comparison; None where not measured.
        claim: what may be said: `slower`, `faster`, `no difference beyond what the control allows`, `too few rounds`;
            empty for the reference, and where there is no ratio.
        calls: measured calls that the percentiles rest on.
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
    calls: int = 0


@dataclass(frozen=True)
class HostPart:
    """Where a steady step of a runner that does more than call into JAX spends its time.

    Attributes:
        backend: whose program.
        program: `forward`, `gradients`, `train step`.
        runner: as in `Timing`.
        part: `modules to arrays`, `jax.jit dispatch`, `compiled program`, `arrays to modules`.
        seconds: lower quartile; `jax.jit dispatch` is what the call into JAX takes beyond the compiled program alone.
    """

    backend: str
    program: str
    runner: str
    part: str
    seconds: float


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
        differs: what the optimised program has more or less of than the reference's, e.g. `copy +4, add -1`.
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
    differs: str = ""


@dataclass(frozen=True)
class Growth:
    """One phase at one depth of a model whose layers are written out or scanned.

    Attributes:
        backend: whose program.
        form: whether the layers are written out or scanned.
        depth: number of layers.
        phase: what is timed.
        seconds: median.
        equations: of the jaxpr.
        runner: as in `Timing`.
        program: as in `Timing`.
        instructions: of the optimised HLO.
    """

    backend: str
    form: Literal["unrolled", "scanned"]
    depth: int
    phase: Phase
    seconds: float
    equations: int
    runner: str = "jax.jit"
    program: str = "gradients"
    instructions: int = 0


@dataclass(frozen=True)
class CaseCosts:
    """What one case costs.

    Attributes:
        timings: measured.
        programs: counted.
        growth: with depth, where the case is measured so.
        withheld: candidate to the reason why nothing of it is timed (a refuted port).
        seconds: how long measuring took.
        parts: where a step goes on the host, for runners that do more than call into JAX.
        load: the machine's load average over the last minute, before and after measuring; empty where there is none.
    """

    timings: tuple[Timing, ...] = ()
    programs: tuple[ProgramCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    withheld: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    parts: tuple[HostPart, ...] = ()
    load: tuple[float, ...] = ()
