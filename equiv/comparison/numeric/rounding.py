"""Measure how rounding moves the outputs of the reference, from which budgets are computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from equiv.comparison.numeric.run_port import CompiledPort, run_then_eval
from equiv.comparison.observation import FRESH_STATE, Outputs, RoundingNoise, Sample
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.output_name import TRAINING, OutputName
from equiv.programs import rounding_depth as depth
from equiv.programs.compiled import Executable
from equiv.programs.probes import Probe, perturb_by_ulp
from equiv.programs.program import Programs

ROUNDING_NUDGES = 2
"""Number of runs with every input moved by an ulp; the largest response counts."""


RunProbe = Callable[[Probe], Outputs]
"""Runs all programs of one port on a probe, in one precision."""


def measure_responses(
    run: RunProbe, base: Mapping[str, Outputs], probes: Sequence[Probe], in_float64: bool
) -> dict[str, dict[OutputName, float]]:
    """Measure how far the outputs of a port move when each of its inputs moves by one ulp.

    Args:
        run: runs the port, compiled or equation by equation.
        base: probe name to its outputs on the probes as they are.
        probes: the probes.
        in_float64: whether `run` is in float64, so that inputs move by an ulp of float64.

    Returns:
        Probe name to output to its largest change.
    """
    responses: dict[str, dict[OutputName, float]] = {}
    for index, probe in enumerate(probes):
        known = responses.setdefault(probe.name, {})
        # Seed 0 moves nothing: where two runs on the same inputs differ, that is noise too.
        for seed in range(1 if index else 0, ROUNDING_NUDGES + 1):
            nudged = perturb_by_ulp(probe, seed, "float64" if in_float64 else None) if seed else probe
            for place, change in _largest_changes(base[probe.name], run(nudged)):
                known[place] = max(known.get(place, 0.0), change)
    return responses


def _largest_changes(base: Outputs, moved: Outputs) -> Iterator[tuple[OutputName, float]]:
    for output, array in base.items():
        if str(array.dtype) in FLOAT_DTYPES:
            with np.errstate(invalid="ignore"):  # inf - inf; non-finite values are left out below, and refuted later
                difference = np.abs(moved[output].astype("float64") - array.astype("float64"))
            yield output, float(np.max(difference[np.isfinite(difference)], initial=0.0))


def measure_noise(compiled: CompiledPort, given: Mapping[str, Sample], probes: Sequence[Probe]) -> RoundingNoise:
    """Measure the rounding noise of a compiled port in both precisions; `given` are its outputs on the probes."""

    def run(executable: Executable, probe: Probe) -> Outputs:
        return run_then_eval(executable, probe, compiled.traced.fresh if probe.name == FRESH_STATE else {}, {})[0]

    native = {name: sample.native for name, sample in given.items()}
    responses = measure_responses(partial(run, compiled.native), native, probes, in_float64=False)
    in_float64: dict[str, dict[OutputName, float]] = {}
    if compiled.float64 is not None:
        float64 = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
        in_float64 = measure_responses(partial(run, compiled.float64), float64, probes, in_float64=True)
    return RoundingNoise(responses, in_float64, output_depths(compiled.native.programs, compiled.native.steps))


def output_depths(programs: Programs, steps: int) -> dict[OutputName, int]:
    """Map outputs to their number of rounded operations in a row; training counts every step."""
    found = {name: value for part in programs.parts for name, value in depth.rounding_depths(part).items()}
    if programs.step is None:
        return found
    per_step = depth.rounding_depths(programs.step)
    trained = max(per_step.values(), default=1) * steps
    later = {replace(name, after_training=True): value + trained for name, value in found.items()}
    return {**found, **{name.of(TRAINING): trained for name in per_step}, **later}
