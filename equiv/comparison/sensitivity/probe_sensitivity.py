"""Probe sensitivity: changing any leaf, or swapping two of one shape, must change an output by more than its budget.

Default-initialised parameters fail this: their zeros and ones hide half of all swapped leaves.

What can be read from gradients needs no run; runs are for what is left, and there are no more of them than leaves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from equiv.backends.build import call_user_code
from equiv.comparison.numeric.held_outputs import output_dtype
from equiv.comparison.numeric.rounding import measure_responses
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import FRESH_STATE, RoundingNoise
from equiv.comparison.sensitivity.first_order import LeafSlopes, measure_slopes, returned_leaves
from equiv.comparison.sensitivity.moves import try_moves
from equiv.comparison.sensitivity.separate_groups import group_by_shape
from equiv.comparison.sensitivity.swaps import MOST_SWAPS, try_swaps
from equiv.comparison.sensitivity.trial_runs import BaseRun, TrialRuns
from equiv.comparison.state import Reference
from equiv.compat import enable_x64
from equiv.core.batch_spec import FLOAT_DTYPES, INEXACT_DTYPES
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName
from equiv.core.results import ProbeTrial
from equiv.errors import EquivError
from equiv.programs.compiled import (
    COMPILED_EQUATIONS,
    by_operation,
    count_all_equations,
    lower_programs,
    run_executable,
)
from equiv.programs.keep_casts import leave_casts_out
from equiv.programs.probes import Probe, ulp
from equiv.programs.program import Programs
from equiv.programs.streamed import stream_each_output
from equiv.programs.traced_port import trace_port_float64


@dataclass(frozen=True)
class Sensitivity:
    """What the first probe notices.

    Attributes:
        trials: one for each leaf that is moved; for leaves of one shape, one for all swaps that are noticed and one
            for each set of leaves of which none is.
        slopes: leaf to what its gradients say.
        runs: number of runs with changed leaves that were made.
    """

    trials: tuple[ProbeTrial, ...]
    slopes: dict[str, LeafSlopes]
    runs: int


def measure_sensitivity(compiled: CompiledPort, reference: Reference, factor: float) -> Sensitivity:
    """Measure whether the first probe shows a change of each leaf, and a swap of each two of one shape and dtype.

    Args:
        compiled: the compiled reference.
        reference: its probes, its outputs on them, and how rounding moves it.
        factor: the case's `budget_factor`.
    """
    first, table = reference.probes[0], compiled.table
    bases = tuple(_base_runs(compiled, reference, factor, first))
    slopes = measure_slopes(bases, first.variables)
    if not all(one.suffices for one in slopes.values()) and (finer := run_finer(compiled, reference, factor)):
        bases = (*bases, finer)
        slopes = measure_slopes(bases, first.variables)
    runs = TrialRuns(bases, left=len(first.variables))
    moved = try_moves(runs, slopes, returned_leaves(compiled.native.programs))
    fresh = next((probe for probe in reference.probes if probe.name == FRESH_STATE), None)
    runs.left = min(runs.left, MOST_SWAPS)
    started = None if fresh is None else next(_base_runs(compiled, reference, factor, fresh))
    swapped = try_swaps(runs, table, group_by_shape(table, first.variables), started, moved)
    return Sensitivity((*moved.trials, *swapped), slopes, runs.made)


def _base_runs(compiled: CompiledPort, reference: Reference, factor: float, probe: Probe) -> Iterator[BaseRun]:
    """Yield the native run and, where it decides, the float64 run."""
    sample = reference.observed.samples[probe.name]
    yield BaseRun(compiled.native, probe, sample.native, reference.noise, factor)
    if compiled.float64 is not None and sample.float64 is not None:
        yield BaseRun(compiled.float64, probe, sample.float64, reference.noise, factor)


def run_finer(compiled: CompiledPort, reference: Reference, factor: float) -> BaseRun | None:
    """Run calls and gradients in float64, where all of the port is proved and its own run says too little.

    Such a port has no float64 run, but one that is not the same would have one: a bfloat16 run alone looks blind, and
    in one of float32 the gradients of deep layers round to zero, so that runs for them grow as the square of the depth.
    Of a large port one gradient of each method is computed, as they take most of the memory.
    """
    if compiled.float64 is not None or compiled.why_no_float64:
        return None
    probe, steps, programs = reference.probes[0], compiled.native.steps, compiled.traced.programs
    narrow, large = _is_narrow(reference, probe), count_all_equations(programs) > COMPILED_EQUATIONS
    if not narrow and not large:
        return None

    def trace() -> Programs | str:
        if not large:
            return trace_port_float64(compiled.traced, frozenset(part.name for part in programs.parts))
        gradients = {part.name.method: part for part in reversed(programs.parts) if part.name.is_gradient}
        parts = [part for part in programs.parts if part.name.is_forward or part in gradients.values()]
        with enable_x64(True):  # without casts: what they round is as large as in the port's own run
            return replace(programs, float64=True, parts=tuple(map(leave_casts_out, parts)), begin=None, step=None)

    def compile_and_run(finer: Programs) -> BaseRun:
        executable = by_operation(finer, compiled.table, steps)
        if large:  # each run has a gradient of every leaf, and what rounding moves scales with the last digit
            outputs, responses = dict(stream_each_output(executable, probe)), _scale_responses(reference, probe)
        else:
            executable = lower_programs(finer, compiled.table, steps, probe)()
            run = partial(run_executable, executable)
            outputs = run(probe)
            responses = measure_responses(run, {probe.name: outputs}, [probe], in_float64=True)[probe.name]
        noise = RoundingNoise({}, {probe.name: responses}, reference.noise.depth)
        return BaseRun(executable, probe, outputs, noise, factor, one_by_one=large)

    port = compiled.table.port
    try:
        finer = call_user_code(port, "tracing in float64", trace)
        return (
            None
            if isinstance(finer, str)
            else call_user_code(port, "running in float64", partial(compile_and_run, finer))
        )
    except EquivError:
        return None  # what it is in its own precision is all that is known


def _scale_responses(reference: Reference, probe: Probe) -> dict[OutputName, Responses]:
    """The responses of the port's own run, as they are in float64."""
    outputs, found = reference.observed.samples[probe.name].native, dict[OutputName, Responses]()
    for name, known in reference.noise.native[probe.name].items():
        dtype = output_dtype(outputs, name)
        if dtype is not None and str(dtype) in INEXACT_DTYPES:
            scale = ulp(np.dtype("float64")) / ulp(dtype)
            found[name] = Responses(scale * known.largest, known.exponents, tuple(scale * one for one in known.blocks))
    return found


def _is_narrow(reference: Reference, probe: Probe) -> bool:
    outputs = reference.observed.samples[probe.name].native
    dtypes = {dtype for name in outputs if (dtype := output_dtype(outputs, name)) is not None}
    return any(str(dtype) in FLOAT_DTYPES and ulp(dtype) > ulp(np.dtype("float32")) for dtype in dtypes)
