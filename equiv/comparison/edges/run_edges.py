"""Run ports on edge probes, and measure or derive what they round there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from equiv.backends.build import call_user_code
from equiv.comparison.edges.judge import exact_noise
from equiv.comparison.numeric.rounding import ROUNDING_NUDGES, measure_responses
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import EdgeProbe, Outputs, ReferenceEdges, RoundingNoise, Sample
from equiv.comparison.state import Reference
from equiv.programs.compiled import Executable, run_observed
from equiv.programs.exercise import Observed
from equiv.programs.probes import Probe


def observe_port(compiled: CompiledPort, probe: Probe) -> Observed:
    """Run a port natively on a probe, for what it exercises."""
    return _call(compiled, compiled.native, probe)[1]


def _call(compiled: CompiledPort, executable: Executable, probe: Probe) -> tuple[Outputs, Observed]:
    return call_user_code(compiled.traced.port.name, "running", partial(run_observed, executable, probe))


def run_port(compiled: CompiledPort, probe: Probe) -> Sample:
    """Run a port on a probe, in float64 too where it has such a run, without another call after training."""
    native, exercised = _call(compiled, compiled.native, probe)
    float64 = None if compiled.float64 is None else _call(compiled, compiled.float64, probe)[0]
    return Sample(native, float64, exercised)


def run_edges(compiled: CompiledPort, edges: Sequence[EdgeProbe]) -> dict[str, Sample]:
    """Run a port on edge probes: probe name to outputs."""
    return {edge.probe.name: run_port(compiled, edge.probe) for edge in edges}


def run_reference_edges(compiled: CompiledPort, known: Reference, edges: Sequence[EdgeProbe]) -> ReferenceEdges:
    """Run the reference on all edge probes, and measure its rounding, or derive it where nothing may be nudged.

    Args:
        compiled: the reference.
        known: its outputs and rounding on ordinary probes.
        edges: the probes.

    Raises:
        PortError: it cannot be run on one of them.
    """
    given = run_edges(compiled, edges)
    nudged = [edge.probe for edge in edges if not edge.exact]
    noise = replace(measure_edge_responses(compiled, given, nudged, ROUNDING_NUDGES), depth=known.noise.depth)
    ordinary = known.probes[0].name
    derived = {
        edge.probe.name: exact_noise(known.noise, known.observed.samples[ordinary], given[edge.probe.name], ordinary)
        for edge in edges
        if edge.exact
    }
    noise = replace(
        noise,
        native={**noise.native, **{name: pair[0] for name, pair in derived.items()}},
        float64={**noise.float64, **{name: pair[1] for name, pair in derived.items()}},
    )
    return ReferenceEdges(tuple(edges), given, noise)


def measure_edge_responses(
    compiled: CompiledPort, given: Mapping[str, Sample], probes: Sequence[Probe], nudges: int
) -> RoundingNoise:
    """Measure how far each output moves with every input by an ulp, without another call after training."""

    def run(executable: Executable, probe: Probe) -> Outputs:
        return _call(compiled, executable, probe)[0]

    native = {name: sample.native for name, sample in given.items()}
    found = measure_responses(partial(run, compiled.native), native, probes, False, nudges)
    if compiled.float64 is None:
        return RoundingNoise(found, {}, {})
    float64 = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
    return RoundingNoise(found, measure_responses(partial(run, compiled.float64), float64, probes, True, nudges), {})
