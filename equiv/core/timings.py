"""The results of timing a case in each library. JAX is not imported here."""

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["trace", "lower", "compile", "first call", "step", "dispatch", "device"]

PHASES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call", "step", "dispatch", "device")
"""The phases, in the order in which they happen.

`first call` is the first run of the compiled program: a user waits for the sum of the first four phases.
`device` and `dispatch` are the parts of a steady `step`: `device` is the time of the compiled program beyond that of
an empty program with as many arrays, `dispatch` the rest, spent on the host.
"""

SLOWER, FASTER, NO_DIFFERENCE = "slower", "faster", "no difference beyond what the control allows"

TOO_FEW = "too few rounds"
"""The claims of a `Timing`, with `TOO_FEW` for a ratio without a claim."""


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
        backend: name of the port's library.
        program: `forward`, `gradients`, `train step`.
        runner: how it is called in the guide: `jax.jit`, `nnx.jit`, `split + jax.jit`.
        phase: the phase that is timed.
        rounds: number of interleaved rounds that the ratio is computed from.
        p50: median of all calls, seconds. `dispatch` and `device` are differences: zero or negative if they are
            smaller than the noise of a `step`.
        p90: 90th percentile, seconds.
        p99: 99th percentile, seconds.
        ratio: the time divided by the reference's, of the same phase and program, round by round; None for the
            reference itself, and if a time is not distinguishable from zero (a `dispatch` below the noise of a `step`).
        control: the reference divided by itself, by the same method in the same run; None if not measured.
        back_to_back: the same ratio from back-to-back timing, for comparison; None if not measured.
        claim: the conclusion that the control allows:
            `slower`, `faster`, `no difference beyond what the control allows`, `too few rounds`;
            empty for the reference, and if there is no ratio.
        calls: number of measured calls that the percentiles are computed from.
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
    back_to_back: Ratio | None = None
    claim: str = ""
    calls: int = 0


@dataclass(frozen=True)
class HostPart:
    """One part of the host time of a steady step, for a runner that does more than call into JAX.

    Attributes:
        backend: name of the port's library.
        program: `forward`, `gradients`, `train step`.
        runner: as in `Timing`.
        part: `modules to arrays`, `jax.jit dispatch`, `compiled program`, `arrays to modules`.
        seconds: lower quartile; `jax.jit dispatch` is the call into JAX without the compiled program.
    """

    backend: str
    program: str
    runner: str
    part: str
    seconds: float


@dataclass(frozen=True)
class ProgramCost:
    """The size and cost of one compiled program, as reported by XLA.

    Attributes:
        backend: name of the port's library.
        program: `forward`, `gradients`, `train step`.
        runner: as in `Timing`.
        equations: number of equations of the jaxpr, loop bodies counted once.
        instructions: number of instructions of the optimised HLO.
        flops: from XLA's cost analysis; None if the platform gives none.
        bytes: bytes accessed, from the same analysis.
        peak_bytes: peak memory, from XLA's memory analysis.
        retraces: number of further traces when called again with the same shapes.
        identical: whether its optimised HLO equals the reference's after canonicalisation: then any gap is host-side.
        differs: the difference in instruction counts from the reference's optimised HLO, e.g. `copy +4, add -1`.
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
    """One phase at one depth of a model with unrolled or scanned layers.

    Attributes:
        backend: name of the port's library.
        form: whether the layers are unrolled or scanned.
        depth: number of layers.
        phase: the phase that is timed.
        seconds: median.
        equations: number of equations of the jaxpr.
        runner: as in `Timing`.
        program: as in `Timing`.
        instructions: number of instructions of the optimised HLO.
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
    """The costs of one case.

    Attributes:
        timings: one per phase, program and port.
        programs: one per compiled program.
        growth: timings at growing depth, if the case has `depths`.
        withheld: candidate to the reason why it is not timed (a refuted port).
        seconds: duration of the measurement.
        parts: the parts of the host time of a step, for runners that do more than call into JAX.
        load: the machine's one-minute load average, before and after measuring; empty if the platform has none.
    """

    timings: tuple[Timing, ...] = ()
    programs: tuple[ProgramCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    withheld: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    parts: tuple[HostPart, ...] = ()
    load: tuple[float, ...] = ()
