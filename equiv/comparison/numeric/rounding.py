"""Measure how rounding moves the outputs of the reference, from which budgets are computed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np

from equiv.comparison.numeric.blocks import BlockTally
from equiv.comparison.numeric.held_outputs import HeldOutputs, array_at_hand
from equiv.comparison.numeric.run_port import CompiledPort, run_then_eval, stream_then_eval
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

Parts = Iterable[Outputs]
"""The outputs of a run in parts, such as one for each train step; the same parts in every run of a port."""


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
    given = {name: [outputs] for name, outputs in base.items()}
    return _measure_streams(lambda probe: [run(probe)], given, probes, in_float64, nudges, actual)


def _measure_streams(
    run: Callable[[Probe], Parts],
    base: Mapping[str, Parts],
    probes: Sequence[Probe],
    in_float64: bool,
    nudges: int,
    actual: Mapping[str, Outputs] | None = None,
) -> dict[str, dict[OutputName, Responses]]:
    responses: dict[str, dict[OutputName, Responses]] = {}
    for index, probe in enumerate(probes):
        dtype = "float64" if in_float64 else None
        moved = [run(perturb_by_ulp(probe, seed, dtype)) for seed in range(1, nudges + 1)]
        # Where two runs on the same inputs differ, that is noise too; where they do not, it says nothing.
        again = repeat({}) if index else run(probe)
        own = (actual or {}).get(probe.name, {})
        responses[probe.name] = _respond(zip(base[probe.name], again, zip(*moved, strict=True), strict=False), own)
    return responses


UNBOUNDED = Responses(float(np.finfo("float64").max))
"""The response of an output that one ulp takes out of the numbers: a variance below zero, then its root."""


def _respond(
    parts: Iterable[tuple[Outputs, Outputs, tuple[Outputs, ...]]], actual: Outputs
) -> dict[OutputName, Responses]:
    """Measure the outputs of one probe: parts of its run, of the same run again, and of those with moved inputs."""
    found: dict[OutputName, BlockTally] = {}
    places: dict[OutputName, int] = {}
    unbounded: set[OutputName] = set()
    for base, again, moved in parts:
        for output, array in base.items():
            if str(array.dtype) not in FLOAT_DTYPES or output not in moved[0]:
                continue
            others = [one[output] for one in moved if output in one]
            if output in again and not np.array_equal(array, again[output], equal_nan=True):
                others.append(again[output])
            found[output] = found.get(output, BlockTally()).add(array, others)
            own = array_at_hand(actual, output)
            if own is not None:
                first = places.get(output, 0)
                places[output] = first + (len(array) if array.ndim else 0)
                own = own[first : places[output]] if array.ndim else own
                if _leaves_numbers(own, (array, *others)):
                    unbounded.add(output)
            del array, others
        del base, again, moved  # before the next part is computed
    return {output: UNBOUNDED if output in unbounded else tally.responses for output, tally in found.items()}


def _leaves_numbers(actual: np.ndarray, runs: Iterable[np.ndarray]) -> bool:
    """Whether an element that is finite is not in every run."""
    finite = np.isfinite(actual.astype("float64"))
    return any(bool(np.any(finite & ~np.isfinite(one.astype("float64")))) for one in runs)


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
        actual: the outputs of the port itself, where `compiled` is a changed one: an output that is finite there, and
            not in every run, has a native response without a bound. In float64, which decides, it has one.
    """

    def run(executable: Executable, probe: Probe) -> Parts:
        own = compiled.traced.fresh if probe.name == FRESH_STATE else {}
        if executable.training is None:
            return [run_then_eval(executable, probe, own, {})[0]]
        return (outputs for outputs, _ in stream_then_eval(executable, probe, own, {}))

    native = {name: _parts(sample.native) for name, sample in given.items()}
    own = {name: sample.native for name, sample in (actual or {}).items()}
    responses = _measure_streams(partial(run, compiled.native), native, probes, False, nudges, own)
    in_float64: dict[str, dict[OutputName, Responses]] = {}
    if compiled.float64 is not None:
        float64 = {name: _parts(sample.float64) for name, sample in given.items() if sample.float64 is not None}
        in_float64 = _measure_streams(partial(run, compiled.float64), float64, probes, True, nudges)
    depths = output_depths(compiled.native.programs, compiled.native.steps)
    distances = {name: _measure_distances(sample) for name, sample in given.items()}
    return RoundingNoise(responses, in_float64, depths, distances)


def _parts(outputs: Outputs) -> Parts:
    """The parts of a run; where large outputs are not held, it is run again as they are asked for."""
    return (part for part, _ in outputs.stream()) if isinstance(outputs, HeldOutputs) else [outputs]


def _measure_distances(sample: Sample) -> dict[OutputName, Responses]:
    """Measure how far large outputs are from their own float64 run, in blocks."""
    if not isinstance(sample.native, HeldOutputs) or not isinstance(sample.float64, HeldOutputs):
        return {}
    large = sample.native.large.keys() & sample.float64.large.keys()
    found: dict[OutputName, BlockTally] = {}
    for native, float64 in zip(_parts(sample.native), _parts(sample.float64), strict=False):
        for output in large & native.keys() & float64.keys():
            found[output] = found.get(output, BlockTally()).add(native[output], [float64[output]])
    return {output: tally.responses for output, tally in found.items()}


def output_depths(programs: Programs, steps: int) -> dict[OutputName, int]:
    """Map outputs to their number of rounded operations in a row; training counts every step."""
    found = {name: value for part in programs.parts for name, value in depth.rounding_depths(part).items()}
    if programs.step is None:
        return found
    per_step = depth.rounding_depths(programs.step)
    trained = max(per_step.values(), default=1) * steps
    later = {replace(name, after_training=True): value + trained for name, value in found.items()}
    return {**found, **{name.of(TRAINING): trained for name in per_step}, **later}
