"""What each port's own way to compute may round: measured where the reference's response does not explain a difference.

The reference may be the better conditioned port: a variance in one pass loses digits that one in two passes keeps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric.blocks import finite_difference, largest_finite
from equiv.comparison.numeric.budgets import find_responses
from equiv.comparison.numeric.held_outputs import array_at_hand, largest_value, output_dtype
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Comparison
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.programs.compiled import Executable, by_operation
from equiv.programs.nudge_operations import NUDGED, keep_programs
from equiv.programs.probes import ulp, widen_array


@dataclass(frozen=True)
class Doubt:
    """A run whose differences badly conditioned ports could explain.

    Attributes:
        probe: on which it is made.
        in_float64: its precision.
    """

    probe: str
    in_float64: bool


def doubted_programs(comparison: Comparison, checks: Iterable[CheckResult]) -> frozenset[ProgramName]:
    """Name the programs with a refuted output whose difference a badly conditioned port could explain."""
    found = (
        _programs_of(finding.output)
        for check in checks
        for finding in check.findings
        if finding.output is not None and _could_be_rounding(comparison, finding)
    )
    return frozenset[ProgramName]().union(*found)


def differs_in_float64(comparison: Comparison, checks: Iterable[CheckResult]) -> bool:
    """Whether an output differs in float64 by more than the rounding of any port could explain."""
    refuted = (finding for check in checks for finding in check.findings if _is_refuted(finding))
    return any(one.precision == "float64" and not _could_be_rounding(comparison, one) for one in refuted)


def find_doubts(checks: Iterable[CheckResult], names: frozenset[ProgramName]) -> dict[Doubt, frozenset[ProgramName]]:
    """Find the runs in which an output of some programs is refuted by its difference, and its programs."""
    found: dict[Doubt, frozenset[ProgramName]] = {}
    for finding in (one for check in checks for one in check.findings if _is_refuted(one)):
        programs = names & _programs_of(finding.output) if finding.output is not None else frozenset()
        if programs:
            doubt = Doubt(finding.probe, finding.precision == "float64")
            found[doubt] = found.get(doubt, frozenset()) | programs
    return found


def _programs_of(output: OutputName) -> frozenset[ProgramName]:
    """The programs that compute an output."""
    program = STEP if output.program == TRAINING else output.program
    return frozenset({program, *([STEP] if output.after_training else [])})


def _is_refuted(finding: Finding) -> bool:
    return finding.output is not None and finding.error is not None and finding.grade in ("refuted", "error")


def _could_be_rounding(comparison: Comparison, finding: Finding) -> bool:
    """Whether it is worth to measure: a native difference is; one in float64 if it is small enough.

    A port loses as many digits in float64 as in its own dtype, so its distance from its own float64 run says how many.
    """
    output = finding.output
    if output is None or finding.error is None or not _is_refuted(finding):
        return False
    if finding.precision != "float64":
        return True
    sides = [side.samples[finding.probe] for side in (comparison.reference, comparison.candidate)]
    lost = find_lost(comparison, finding.probe, output)
    if lost is None:
        return False
    dtype = output_dtype(sides[0].native, output)
    assert dtype is not None, "it was compared"
    known = find_responses(comparison.noise, finding.probe, output, in_float64=True)
    largest = largest_value(sides[0].float64 or {}, output)
    whole = rounding_response(
        max(known.largest, lost * ulp(np.dtype("float64")) / ulp(dtype)), ulp(np.dtype("float64")), largest
    )
    growth = rounding_growth(comparison.noise.depth.get(output, 1), comparison.case.budget_factor)
    return finding.error <= GENEROUS * whole * growth


def find_lost(comparison: Comparison, probe: str, output: OutputName) -> float | None:
    """How far the native values of the ports are from those of their own float64 runs, at most; None: they have none.

    Of an output without arrays it is that of the reference, which was measured as it ran.
    """
    sides = [side.samples[probe] for side in (comparison.reference, comparison.candidate)]
    if any(side.float64 is None or output not in side.float64 or output not in side.native for side in sides):
        return None
    native = [array_at_hand(side.native, output) for side in sides]
    wide = [array_at_hand(side.float64, output) for side in sides if side.float64 is not None]
    pairs = [(one, other) for one, other in zip(native, wide, strict=True) if one is not None and other is not None]
    if len(pairs) == len(sides):
        return max(largest_finite(finite_difference(widen_array(one), other)) for one, other in pairs)
    distance = comparison.noise.from_float64.get(probe, {}).get(output)
    return None if distance is None else distance.largest


GENEROUS = 16
"""How far a guess of what may be lost may be off, to be worth a measurement, which then decides."""


FEW_NUDGES = 2
"""Number of these runs that are made first; see `equiv.comparison.numeric.own_runs`."""

OPERATION_NUDGES = 8
"""Number of runs with every result moved by an ulp. A single rounding may matter, which goes up or down: so more runs
than with the inputs moved, each of which has many ways to go."""


def nudge_port(
    compiled: CompiledPort, names: frozenset[ProgramName], other: CompiledPort | None, in_float64: bool | None = None
) -> CompiledPort:
    """Make a port of some programs, run operation by operation, where every rounded result moves by one ulp.

    Only its runs are to be compared with each other: a compiler may round otherwise.

    Args:
        compiled: the port.
        names: of the programs.
        other: the port that it is compared with, which may compute in the same narrow dtypes; None: it is frozen.
        in_float64: whether they are run in float64 alone, or natively alone; None: in both.
    """
    theirs = None if other is None else other.native.programs

    def nudge(executable: Executable, kept: frozenset[ProgramName]) -> Executable:
        programs = keep_programs(executable.programs, kept, theirs)
        return by_operation(programs, executable.table, executable.steps, NUDGED, executable.counters)

    native = nudge(compiled.native, frozenset() if in_float64 else names)
    float64 = None if compiled.float64 is None or in_float64 is False else nudge(compiled.float64, names)
    return replace(compiled, native=native, float64=float64)
