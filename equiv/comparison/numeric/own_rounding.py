"""What each port's own way to compute may round: measured where the reference's response does not explain a difference.

The reference may be the better conditioned port: a variance in one pass loses digits that one in two passes keeps.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from equiv.comparison.numeric.arrays import float64_pair
from equiv.comparison.numeric.blocks import finite_difference, largest_finite
from equiv.comparison.numeric.budgets import find_responses
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Comparison
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.output_name import STEP, TRAINING, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.programs.compiled import Executable, by_operation
from equiv.programs.nudge_operations import NUDGED, keep_programs
from equiv.programs.probes import ulp, widen_array


def doubted_programs(comparison: Comparison, checks: Iterable[CheckResult]) -> frozenset[ProgramName]:
    """Name the programs with a refuted output whose difference a badly conditioned port could explain."""
    found: set[ProgramName] = set()
    for check in checks:
        for finding in check.findings:
            if finding.output is not None and _could_be_rounding(comparison, finding):
                program = finding.output.program
                found |= {STEP if program == TRAINING else program}
                found |= {STEP} if finding.output.after_training else set()
    return frozenset(found)


def _could_be_rounding(comparison: Comparison, finding: Finding) -> bool:
    """Whether it is worth to measure: a native difference is; one in float64 if it is small enough.

    A port loses as many digits in float64 as in its own dtype, so its distance from its own float64 run says how many.
    """
    output = finding.output
    if output is None or finding.error is None or finding.grade not in ("refuted", "error"):
        return False
    if finding.precision != "float64":
        return True
    sides = [side.samples[finding.probe] for side in (comparison.reference, comparison.candidate)]
    pair = float64_pair(sides[0], sides[1], output, output)
    if pair is None:
        return False
    native = (side.native[output] for side in sides)
    lost = max(_digits_lost(*arrays) for arrays in zip(pair, native, strict=True))
    known = find_responses(comparison.noise, finding.probe, output, in_float64=True)
    whole = rounding_response(max(known.largest, lost), ulp(pair[0].dtype), largest_finite(pair[0]))
    growth = rounding_growth(comparison.noise.depth.get(output, 1), comparison.case.budget_factor)
    return finding.error <= GENEROUS * whole * growth


GENEROUS = 16
"""How far a guess of what may be lost may be off, to be worth a measurement, which then decides."""


def _digits_lost(float64: np.ndarray, native: np.ndarray) -> float:
    """A port's own rounding in float64, as far as its native run lets one guess."""
    distance = finite_difference(widen_array(native), float64)
    return largest_finite(distance) * ulp(float64.dtype) / ulp(native.dtype)


OPERATION_NUDGES = 8
"""Number of runs with every result moved by an ulp. A single rounding may matter, which goes up or down: so more runs
than with the inputs moved, each of which has many ways to go."""


def nudge_port(compiled: CompiledPort, names: frozenset[ProgramName], other: CompiledPort | None) -> CompiledPort:
    """Make a port of some programs, run operation by operation, where every rounded result moves by one ulp.

    Only its runs are to be compared with each other: a compiler may round otherwise.

    Args:
        compiled: the port.
        names: of the programs.
        other: the port that it is compared with, which may compute in the same narrow dtypes; None: it is frozen.
    """
    theirs = None if other is None else other.native.programs

    def nudge(executable: Executable) -> Executable:
        programs = keep_programs(executable.programs, names, theirs)
        return by_operation(programs, executable.table, executable.steps, NUDGED, executable.counters)

    float64 = None if compiled.float64 is None else nudge(compiled.float64)
    return replace(compiled, native=nudge(compiled.native), float64=float64)
