"""Measure how rounding moves the outputs of the reference, from which budgets are computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from equiv.comparison.numeric.blocks import measure_blocks
from equiv.comparison.numeric.run_port import CompiledPort, run_then_eval
from equiv.comparison.observation import FRESH_STATE, Outputs, RoundingNoise, Sample
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import Responses
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
    run: RunProbe,
    base: Mapping[str, Outputs],
    probes: Sequence[Probe],
    in_float64: bool,
    nudges: int = ROUNDING_NUDGES,
    actual: Mapping[str, Outputs] | None = None,
) -> dict[str, dict[OutputName, Responses]]:
    """Measure how far the outputs of a port move when each of its inputs moves by one ulp.

    Args:
        run: runs the port, compiled or equation by equation.
        base: probe name to its outputs on the probes as they are.
        probes: the probes.
        in_float64: whether `run` is in float64, so that inputs move by an ulp of float64.
        nudges: number of runs with every input moved.
        actual: probe name to the outputs of the port itself, where `run` runs a changed one: an output that is finite
            there, and not in every run, has a response without a bound.

    Returns:
        Probe name to output to its responses.
    """
    responses: dict[str, dict[OutputName, Responses]] = {}
    for index, probe in enumerate(probes):
        given = base[probe.name]
        moved = [run(perturb_by_ulp(probe, seed, "float64" if in_float64 else None)) for seed in range(1, nudges + 1)]
        # Where two runs on the same inputs differ, that is noise too; where they do not, it says nothing.
        again = {} if index else {name: array for name, array in run(probe).items() if _differs(given[name], array)}
        own = (actual or {}).get(probe.name, {})
        responses[probe.name] = {
            output: _respond(array, [one[output] for one in (*moved, again) if output in one], own.get(output))
            for output, array in given.items()
            if str(array.dtype) in FLOAT_DTYPES and output in moved[0]
        }
    return responses


UNBOUNDED = Responses(float(np.finfo("float64").max))
"""The response of an output that one ulp takes out of the numbers: a variance below zero, then its root."""


def _respond(base: np.ndarray, moved: Sequence[np.ndarray], actual: np.ndarray | None) -> Responses:
    if actual is not None:
        finite = np.isfinite(actual.astype("float64"))
        if any(np.any(finite & ~np.isfinite(one.astype("float64"))) for one in (base, *moved)):
            return UNBOUNDED
    return measure_blocks(base, moved)


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    return str(one.dtype) in FLOAT_DTYPES and not np.array_equal(one, other, equal_nan=True)


def measure_noise(
    compiled: CompiledPort,
    given: Mapping[str, Sample],
    probes: Sequence[Probe],
    nudges: int = ROUNDING_NUDGES,
    actual: Mapping[str, Sample] | None = None,
) -> RoundingNoise:
    """Measure the rounding noise of a compiled port in both precisions.

    Args:
        compiled: the port.
        given: its outputs on the probes.
        probes: the probes.
        nudges: number of runs with every input moved.
        actual: the outputs of the port itself, where `compiled` is a changed one. Its native response has no bound
            where these are finite and a run is not; in float64, which decides, it has.
    """

    def run(executable: Executable, probe: Probe) -> Outputs:
        return run_then_eval(executable, probe, compiled.traced.fresh if probe.name == FRESH_STATE else {}, {})[0]

    native = {name: sample.native for name, sample in given.items()}
    own = {name: sample.native for name, sample in (actual or {}).items()}
    responses = measure_responses(partial(run, compiled.native), native, probes, False, nudges, own)
    in_float64: dict[str, dict[OutputName, Responses]] = {}
    if compiled.float64 is not None:
        float64 = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
        in_float64 = measure_responses(partial(run, compiled.float64), float64, probes, True, nudges)
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
