"""Measure how rounding moves the outputs of the reference, from which budgets are computed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from equiv.comparison.numeric.blocks import BlockTally
from equiv.comparison.numeric.held_outputs import HeldOutputs, array_at_hand, drop_observed, run_in_step
from equiv.comparison.numeric.run_port import CompiledPort, run_then_eval, stream_then_eval
from equiv.comparison.observation import FRESH_STATE, Outputs, RoundingNoise, Sample
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import Responses
from equiv.core.output_name import TRAINING, OutputName
from equiv.programs import rounding_depth as depth
from equiv.programs.compiled import Executable
from equiv.programs.probes import Probe, perturb_by_ulp, widen_array
from equiv.programs.program import Programs

ROUNDING_NUDGES = 2
"""Number of runs with every input moved by an ulp; the largest response counts."""


RunProbe = Callable[[Probe], Outputs]
"""Runs all programs of one port on a probe, in one precision."""

Parts = Iterable[Outputs]
"""The outputs of a run in parts, such as one for each train step; the same parts in every run of a port."""

StreamProbe = Callable[[Probe], Parts]
"""The same, part by part."""


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
    return measure_parts(lambda probe: [run(probe)], base, probes, in_float64, nudges, actual)


MOST_TOGETHER = 2
"""Number of changed runs that are in memory at once, beside the one that they are compared with."""


def measure_parts(
    run: StreamProbe,
    base: Mapping[str, Outputs],
    probes: Sequence[Probe],
    in_float64: bool,
    nudges: int = ROUNDING_NUDGES,
    actual: Mapping[str, Outputs] | None = None,
    again: bool = True,
) -> dict[str, dict[OutputName, Responses]]:
    """Measure the same of a port that is run part by part; arguments as of `measure_responses`.

    Where two runs on the same inputs differ, that is noise too; `again` says whether to try it, on the first probe:
    where they do not, it says nothing of the others.
    """
    responses: dict[str, dict[OutputName, Responses]] = {}
    for index, probe in enumerate(probes):
        seeds = [*((None,) if again and not index else ()), *range(1, nudges + 1)]
        tally = ProbeTally((actual or {}).get(probe.name, {}))
        tally_runs(tally, run, partial(list_parts, base[probe.name]), probe, seeds, in_float64)
        responses[probe.name] = tally.responses
    return responses


def tally_runs(
    tally: "ProbeTally",
    run: StreamProbe,
    base: Callable[[], Parts],
    probe: Probe,
    seeds: Sequence[int | None],
    in_float64: bool,
) -> None:
    """Add changed runs on one probe to what is known of it.

    Args:
        tally: what is known, which changes.
        run: runs the port part by part.
        base: gives the parts of its run on the probe as it is, each time it is called.
        probe: the probe.
        seeds: of the directions in which every input moves; None, which may come first, is the same run again.
        in_float64: as of `measure_responses`.
    """
    for first in range(0, len(seeds), MOST_TOGETHER):
        together = seeds[first : first + MOST_TOGETHER]
        changed = (_run_moved(run, probe, seed, "float64" if in_float64 else None) for seed in together)
        tally.add(run_in_step([base(), *changed]), again=together[0] is None)


def _run_moved(run: StreamProbe, probe: Probe, seed: int | None, dtype: str | None) -> Parts:
    """Run a port on a probe with every input moved; None: on the probe as it is."""
    yield from run(probe if seed is None else perturb_by_ulp(probe, seed, dtype))


UNBOUNDED = Responses(float(np.finfo("float64").max))
"""The response of an output that one ulp takes out of the numbers: a variance below zero, then its root."""


@dataclass(frozen=True)
class ProbeTally:
    """The responses of all outputs on one probe, as runs are added.

    Attributes:
        actual: the outputs of the port itself.
        found: output to its responses.
        unbounded: outputs that leave the numbers.
    """

    actual: Outputs
    found: dict[OutputName, BlockTally] = field(default_factory=dict)
    unbounded: set[OutputName] = field(default_factory=set)

    @property
    def responses(self) -> dict[OutputName, Responses]:
        """Output to its responses."""
        return {name: UNBOUNDED if name in self.unbounded else one.responses for name, one in self.found.items()}

    @property
    def observed(self) -> dict[OutputName, Responses]:
        """Output to the responses as they are; see `BlockTally.observed`."""
        return {name: UNBOUNDED if name in self.unbounded else one.observed for name, one in self.found.items()}

    def add(self, parts: Iterable[list[Outputs]], again: bool) -> None:
        """Add parts of a run and of changed ones; the first of these may be the same run `again`."""
        places: dict[OutputName, int] = {}
        for together in parts:
            base, *others = together
            same, moved = (others[0], others[1:]) if again else ({}, others)
            del together[:], others
            for output, array in base.items():
                if str(array.dtype) in INEXACT_DTYPES and output in moved[0]:
                    changed = [one[output] for one in moved if output in one]
                    if output in same and not np.array_equal(array, same[output], equal_nan=True):
                        changed.append(same[output])
                    self._add_output(output, array, changed, places)
                    del changed
                del array
            del base, same, moved  # before the next part is computed

    def _add_output(
        self, output: OutputName, array: np.ndarray, changed: Sequence[np.ndarray], places: dict[OutputName, int]
    ) -> None:
        self.found[output] = self.found.get(output, BlockTally()).add(array, changed)
        own = array_at_hand(self.actual, output)
        if own is not None:
            first = places.get(output, 0)
            places[output] = first + (len(array) if array.ndim else 0)
            own = own[first : places[output]] if array.ndim else own
            if _leaves_numbers(own, (array, *changed)):
                self.unbounded.add(output)


def _leaves_numbers(actual: np.ndarray, runs: Iterable[np.ndarray]) -> bool:
    """Whether an element that is finite is not in every run."""
    finite = np.isfinite(widen_array(actual))
    return any(bool(np.any(finite & ~np.isfinite(widen_array(one)))) for one in runs)


def measure_noise(
    compiled: CompiledPort,
    given: Mapping[str, Sample],
    probes: Sequence[Probe],
    nudges: int = ROUNDING_NUDGES,
    actual: Mapping[str, Sample] | None = None,
    again: bool = True,
) -> RoundingNoise:
    """Measure the rounding noise of a compiled port in both precisions.

    Args:
        compiled: the port.
        given: its outputs on the probes.
        probes: the probes.
        nudges: number of runs with every input moved.
        actual: the outputs of the port itself, where `compiled` is a changed one: an output that is finite there, and
            not in every run, has a native response without a bound. In float64, which decides, it has one.
        again: whether two runs on the same inputs may differ, as those of a compiled program.
    """

    native = {name: sample.native for name, sample in given.items()}
    own = {name: sample.native for name, sample in (actual or {}).items()}
    responses = measure_parts(
        partial(run_in_parts, compiled, compiled.native), native, probes, False, nudges, own, again
    )
    in_float64: dict[str, dict[OutputName, Responses]] = {}
    if compiled.float64 is not None:
        float64 = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
        in_float64 = measure_parts(
            partial(run_in_parts, compiled, compiled.float64), float64, probes, True, nudges, again=again
        )
    depths = output_depths(compiled.native.programs, compiled.native.steps)
    distances = {name: _measure_distances(sample) for name, sample in given.items()}
    return RoundingNoise(responses, in_float64, depths, distances)


def run_in_parts(compiled: CompiledPort, executable: Executable, probe: Probe) -> Parts:
    """Run the programs of a port on a probe, its own state fresh where the probe's is, and yield the outputs."""
    own = compiled.traced.fresh if probe.name == FRESH_STATE else {}
    if executable.training is None:
        return [run_then_eval(executable, probe, own, {})[0]]
    return drop_observed(stream_then_eval(executable, probe, own, {}))


def list_parts(outputs: Outputs) -> Parts:
    """The parts of a run; where large outputs are not held, it is run again as they are asked for."""
    return drop_observed(outputs.stream()) if isinstance(outputs, HeldOutputs) else [outputs]


def _measure_distances(sample: Sample) -> dict[OutputName, Responses]:
    """Measure how far large outputs are from their own float64 run, in blocks."""
    if not isinstance(sample.native, HeldOutputs) or not isinstance(sample.float64, HeldOutputs):
        return {}
    large = sample.native.large.keys() & sample.float64.large.keys()
    found: dict[OutputName, BlockTally] = {}
    for together in run_in_step([list_parts(sample.native), list_parts(sample.float64)]):
        native, float64 = together
        del together[:]
        for output in large & native.keys() & float64.keys():
            found[output] = found.get(output, BlockTally()).add(native[output], [float64[output]])
        del native, float64
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
