"""Measure how rounding moves the outputs of the reference, from which budgets are computed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from equiv.compare.numeric.run_port import CompiledPort, run_then_eval
from equiv.compare.observation import FRESH_STATE, Outputs, RoundingNoise, Sample
from equiv.core.output_name import TRAINING, OutputName
from equiv.programs import rounding_depth as depth
from equiv.programs.compiled import Executable
from equiv.programs.probes import Probe, perturb_by_ulp

ROUNDING_NUDGES = 2
"""Number of runs with every input moved by an ulp; the largest response counts."""


def measure_noise(compiled: CompiledPort, given: Mapping[str, Sample], all_probes: list[Probe]) -> RoundingNoise:
    """Measure how far the reference moves when each of its inputs moves by one ulp, in both precisions."""
    responses: tuple[dict[str, dict[OutputName, float]], dict[str, dict[OutputName, float]]] = ({}, {})
    for index, probe in enumerate(all_probes):
        own = compiled.traced.fresh if probe.name == FRESH_STATE else {}
        # Seed 0 moves nothing: where two runs on the same inputs differ, that is noise too.
        for seed in range(1 if index else 0, ROUNDING_NUDGES + 1):
            for in_float64, executable in ((False, compiled.native), (True, compiled.float64)):
                base = given[probe.name].float64 if in_float64 else given[probe.name].native
                if executable is None or base is None:
                    continue
                given_probe = probe if seed == 0 else perturb_by_ulp(probe, seed, "float64" if in_float64 else None)
                moved = run_then_eval(executable, given_probe, own, {})
                known = responses[in_float64].setdefault(probe.name, {})
                for output, value in _responses(base, moved):
                    known[output] = max(known.get(output, 0.0), value)
    return RoundingNoise(*responses, output_depths(compiled.native))


def _responses(base: Outputs, moved: Outputs) -> Iterator[tuple[OutputName, float]]:
    for output, array in base.items():
        if "float" in str(array.dtype):
            with np.errstate(invalid="ignore"):  # inf - inf; non-finite values are left out below, and refuted later
                difference = np.abs(moved[output].astype("float64") - array.astype("float64"))
            yield output, float(np.max(difference[np.isfinite(difference)], initial=0.0))


def output_depths(executable: Executable) -> dict[OutputName, int]:
    """Map outputs to their number of rounded operations in a row; training counts every step."""
    programs = executable.programs
    found = {name: value for part in programs.parts for name, value in depth.rounding_depths(part).items()}
    if programs.step is None:
        return found
    per_step = depth.rounding_depths(programs.step)
    trained = max(per_step.values(), default=1) * executable.steps
    later = {replace(name, after_training=True): value + trained for name, value in found.items()}
    return {**found, **{name.of(TRAINING): trained for name in per_step}, **later}
