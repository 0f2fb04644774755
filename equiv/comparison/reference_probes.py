"""Run the reference on probes on which its outputs are finite, so that something is compared; and its rounding."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from equiv.comparison.numeric.held_outputs import count_nonfinite
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.numeric.rounding import measure_noise
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs, run_on_probe, train_step_kind
from equiv.comparison.numeric.step_moves import StepMoves, moved_parameters
from equiv.comparison.observation import LARGE_INPUTS, RoundingNoise, Sample
from equiv.comparison.state import CaseState, Reference
from equiv.programs.content import calls_foreign_code
from equiv.programs.exercise import Observed, merge_observed
from equiv.programs.probes import Probe, is_same_probe

PARAMETER_SCALES = (1.0, 0.5, 0.25, 0.125)
"""Factors on the probe's parameters, tried one after the other until the reference's outputs are finite."""


def start_reference(state: CaseState) -> CaseState:
    """Wait for the reference, and run it on its probes.

    Raises:
        EquivError: it cannot be compiled or run.
    """
    state.progress(f"compiling {state.reference}")
    compiled = state.compiling[state.reference]()
    given, used = run_on_probes(state, compiled)
    observed = Reference(collect_outputs(compiled, given), tuple(used), RoundingNoise({}, {}, {}))
    exercised = {**state.exercised, state.reference: merge_samples(given)}
    return replace(state, compiled_reference=compiled, observed=observed, exercised=exercised)


def measure_rounding(state: CaseState) -> CaseState:
    """Measure the rounding of the reference on its probes.

    Raises:
        EquivError: it cannot be run.
    """
    state.progress("measuring rounding")
    observed, compiled = state.observed, state.compiled_reference
    assert observed is not None, "start_reference comes before"
    assert compiled is not None, "a frozen reference has its noise already"
    noise = measure_noise(compiled, observed.observed.samples, observed.probes)
    return replace(state, observed=replace(observed, noise=noise))


def merge_samples(samples: Mapping[str, Sample]) -> Observed:
    """What a port exercised on all of its probes."""
    return merge_observed([sample.exercised for sample in samples.values()])


def run_on_probes(state: CaseState, compiled: CompiledPort) -> tuple[dict[str, Sample], list[Probe]]:
    """Run the reference on its probes: those that the case has already, else those on which its outputs are finite."""
    used = list(state.probes.get(state.reference, ()))
    if used:
        return {probe.name: _run_watched(state, compiled, probe) for probe in used}, used
    parts = (part for traced in state.traced.values() for part in traced.programs.parts)
    foreign = any(calls_foreign_code(part.jaxpr) for part in parts)
    tries: list[tuple[int, dict[str, Sample], list[Probe]]] = []
    for spread in PARAMETER_SCALES:
        for far in (True, False) if foreign else (False,):
            used = make_probes(state.built_case, compiled.table, spread, state.seeds, state.proved, far)
            given = {probe.name: _run_watched(state, compiled, probe) for probe in used}
            if LARGE_INPUTS in given and _overflows(given[LARGE_INPUTS], given[used[0].name]):
                # The reference itself overflows there: its outputs cannot be compared.
                used = [one for one in used if one.name != LARGE_INPUTS]
                given = {probe.name: given[probe.name] for probe in used}
            counts = [_count_nonfinite(one) for name, one in given.items() if name != LARGE_INPUTS]
            tries.append((sum(counts), given, used))
            if LARGE_INPUTS in given or state.proved:
                break
        if not tries[-1][0]:
            break
    # A mask of -inf is in every try, and no reason for small parameters.
    _, given, used = min(tries, key=lambda one: (one[0], -len(one[2])))
    return given, used


def _run_watched(state: CaseState, compiled: CompiledPort, probe: Probe) -> Sample:
    """Run the reference on a probe, and see how far large train steps of the default optimizer move its parameters."""
    is_own = train_step_kind(compiled.traced.port) == "own"
    steps = StepMoves({} if is_own else moved_parameters(compiled.table, probe))
    earlier = None if state.before is None else _find_same_run(state.before, probe)
    return replace(run_on_probe(compiled, probe, hold=steps.hold, earlier=earlier), moves=steps.moves)


def _find_same_run(before: CaseState, probe: Probe) -> Sample | None:
    """What the reference gave on the same probe with another train step."""
    known = before.observed
    same = known is not None and any(is_same_probe(one, probe) for one in known.probes)
    return known.observed.samples[probe.name] if known is not None and same else None


def _count_nonfinite(given: Sample) -> int:
    return sum(count_nonfinite(given.native, output) for output in given.native)


def _overflows(large: Sample, ordinary: Sample) -> bool:
    """Whether a native output has values that are not finite where it has finite ones on an ordinary probe."""
    return any(
        bool(np.any(~np.isfinite(large.native[output]) & np.isfinite(ordinary.native[output])))
        for output in large.native
        if count_nonfinite(large.native, output)
    )
