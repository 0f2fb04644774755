"""Run ports on edge probes, and measure or derive what they round there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from equiv.backends.build import call_user_code
from equiv.comparison.edges.judge import exact_noise
from equiv.comparison.numeric.held_outputs import drop_observed, hold_outputs
from equiv.comparison.numeric.rounding import ROUNDING_NUDGES, Parts, measure_parts
from equiv.comparison.numeric.run_port import CompiledPort, OutputsAndObserved, stream_user_code
from equiv.comparison.observation import EdgeProbe, Outputs, ReferenceEdges, RoundingNoise, Sample
from equiv.comparison.state import Reference
from equiv.programs.compiled import Executable, run_observed, stream_outputs
from equiv.programs.exercise import Observed, merge_observed
from equiv.programs.probes import Probe


@dataclass(frozen=True)
class EdgeRun:
    """The reference on one edge probe.

    Attributes:
        edge: the probe.
        sample: its outputs.
        noise: its response to rounding on it.
    """

    edge: EdgeProbe
    sample: Sample
    noise: RoundingNoise


def observe_port(compiled: CompiledPort, probe: Probe) -> Observed:
    """Run a port natively on a probe, for what it exercises."""
    return merge_observed([observed for _, observed in _stream(compiled, compiled.native, probe)])


def _stream(compiled: CompiledPort, executable: Executable, probe: Probe) -> Iterator[OutputsAndObserved]:
    return stream_user_code(compiled.traced.port.name, "running", stream_outputs(executable, probe))


def _run(compiled: CompiledPort, executable: Executable, probe: Probe) -> tuple[Outputs, Observed]:
    if executable.training is not None:
        return hold_outputs(partial(_stream, compiled, executable, probe))
    return call_user_code(compiled.traced.port.name, "running", partial(run_observed, executable, probe))


def run_port(compiled: CompiledPort, probe: Probe) -> Sample:
    """Run a port on a probe, in float64 too where it has such a run, without another call after training."""
    native, exercised = _run(compiled, compiled.native, probe)
    float64 = None if compiled.float64 is None else _run(compiled, compiled.float64, probe)[0]
    return Sample(native, float64, exercised)


def run_in_parts(compiled: CompiledPort, executable: Executable, probe: Probe) -> Parts:
    """Run one executable of a port, part by part, without another call after training."""
    if executable.training is None:
        return [_run(compiled, executable, probe)[0]]
    return drop_observed(_stream(compiled, executable, probe))


def run_reference(compiled: CompiledPort, known: Reference, edges: Sequence[EdgeProbe]) -> Iterator[EdgeRun]:
    """Run the reference on edge probes, one after the other, and measure its rounding; none is kept.

    Where nothing may be nudged, its rounding is derived.

    Args:
        compiled: the reference.
        known: its outputs and rounding on ordinary probes.
        edges: the probes.

    Raises:
        PortError: it cannot be run on one of them.
    """
    ordinary, again = known.probes[0].name, True
    for edge in edges:
        name, sample = edge.probe.name, run_port(compiled, edge.probe)
        if edge.exact:
            native, float64 = exact_noise(known.noise, known.observed.samples[ordinary], sample, ordinary)
            noise = RoundingNoise({name: native}, {name: float64}, known.noise.depth)
        else:
            noise = measure_edge_responses(compiled, {name: sample}, [edge.probe], ROUNDING_NUDGES, again)
            noise, again = replace(noise, depth=known.noise.depth), False
        yield EdgeRun(edge, sample, noise)
        del sample


def run_reference_edges(compiled: CompiledPort, known: Reference, edges: Sequence[EdgeProbe]) -> ReferenceEdges:
    """Run the reference on all edge probes, and keep all of it, to be frozen; arguments as of `run_reference`."""
    runs = list(run_reference(compiled, known, edges))
    native = {name: found for run in runs for name, found in run.noise.native.items()}
    float64 = {name: found for run in runs for name, found in run.noise.float64.items()}
    samples = {run.edge.probe.name: run.sample for run in runs}
    return ReferenceEdges(tuple(edges), samples, RoundingNoise(native, float64, known.noise.depth))


def measure_edge_responses(
    compiled: CompiledPort, given: Mapping[str, Sample], probes: Sequence[Probe], nudges: int, again: bool = True
) -> RoundingNoise:
    """Measure how far each output moves with every input by an ulp, without another call after training.

    Args:
        compiled: the port.
        given: probe name to its outputs.
        probes: the probes.
        nudges: number of runs with every input moved.
        again: whether to run the first probe as it is once more: where two such runs differ, that is noise too.
    """
    run = partial(run_in_parts, compiled)
    native = {name: sample.native for name, sample in given.items()}
    found = measure_parts(partial(run, compiled.native), native, probes, False, nudges, again=again)
    if compiled.float64 is None:
        return RoundingNoise(found, {}, {})
    wide = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
    in_float64 = measure_parts(partial(run, compiled.float64), wide, probes, True, nudges, again=again)
    return RoundingNoise(found, in_float64, {})
