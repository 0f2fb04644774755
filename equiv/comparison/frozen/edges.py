"""The edge probes of a frozen reference: made for its own thresholds, since no candidate is known yet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from equiv.comparison.edges.design import design_edges
from equiv.comparison.edges.judge import count_ties
from equiv.comparison.edges.run_edges import run_reference_edges
from equiv.comparison.frozen.bundle import FrozenArrays, FrozenEdge, FrozenProbe, FrozenReference
from equiv.comparison.observation import EdgeProbe, ReferenceEdges, RoundingNoise, Sample
from equiv.comparison.state import CaseState
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName
from equiv.errors import EquivError
from equiv.programs.exercise import Site
from equiv.programs.probes import Probe

Known = TypeVar("Known")

AllResponses = Mapping[str, Mapping[OutputName, Responses]]


@dataclass(frozen=True)
class FrozenEdges:
    """Edge probes with their responses to rounding.

    Attributes:
        edges: the probes and outputs.
        noise: probe to output to its responses.
        float64_noise: likewise in float64.
        refused: why the reference could not be run on any.
        thresholds: what its programs compare values with.
    """

    edges: tuple[FrozenEdge, ...]
    noise: AllResponses
    float64_noise: AllResponses
    refused: str
    thresholds: tuple[float, ...]


def freeze_edges(state: CaseState) -> FrozenEdges:
    """Run the reference on its edge probes, and keep what is compared on them.

    Args:
        state: the case; its reference has run.
    """
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "it is frozen only now"
    state.progress("looking beyond ordinary values")
    observed = state.exercised[state.reference]
    bounds = tuple(sorted({site.bound for site in observed if site.kind in ("threshold", "overflow")}))
    try:
        edges = design_edges(state, {state.reference: state.compiled_reference})
        found = run_reference_edges(state.compiled_reference, state.observed, edges)
    except EquivError as error:
        return FrozenEdges((), {}, {}, str(error), bounds)  # a model may refuse such values
    kept = tuple(_freeze_edge(edge, state.observed.probes[0], found.samples[edge.probe.name]) for edge in edges)
    native, float64 = (
        {one.probe.name: _pick(one, known.get(one.probe.name, {})) for one in kept}
        for known in (found.noise.native, found.noise.float64)
    )
    return FrozenEdges(kept, native, float64, "", bounds)


def _freeze_edge(edge: EdgeProbe, first: Probe, given: Sample) -> FrozenEdge:
    probe = edge.probe
    frozen = FrozenEdge(
        FrozenProbe(
            probe.name,
            probe.seed,
            _changed(probe.variables, first.variables),
            _changed(probe.batches, first.batches),
            {},
            None,
        ),
        probe.late,
        probe.tails,
        edge.calls,
        edge.training,
        edge.exact,
        edge.guarded,
        edge.overflows,
        tuple(count_ties(given.exercised).items()),
    )
    float64 = None if given.float64 is None else _pick(frozen, given.float64)
    return replace(frozen, probe=replace(frozen.probe, native=_pick(frozen, given.native), float64=float64))


def _changed(arrays: FrozenArrays, first: FrozenArrays) -> FrozenArrays:
    """The arrays that are not those of the first probe: most have its parameters."""
    return {name: array for name, array in arrays.items() if not np.array_equal(array, first[name], equal_nan=False)}


def _pick(edge: FrozenEdge, known: Mapping[OutputName, Known]) -> dict[OutputName, Known]:
    """What is known of the outputs that are compared on an edge probe."""
    return {name: one for name, one in known.items() if (edge.training if name.program.is_training else edge.calls)}


def restore_edges(frozen: FrozenReference) -> ReferenceEdges | None:
    """Restore the edge probes from a bundle; None where the reference could not be run on any."""
    if not frozen.edges:
        return None
    edges = tuple(_restore_edge(frozen, one) for one in frozen.edges)
    samples = {
        one.probe.name: Sample(
            one.probe.native,
            one.probe.float64,
            {Site("threshold", "", bound): np.array([bound, bound, count]) for bound, count in one.ties},
        )
        for one in frozen.edges
    }
    return ReferenceEdges(edges, samples, RoundingNoise(frozen.noise, frozen.float64_noise, frozen.depth))


def _restore_edge(frozen: FrozenReference, one: FrozenEdge) -> EdgeProbe:
    first, known = frozen.probes[0], one.probe
    variables, batches = {**first.variables, **known.variables}, {**first.batches, **known.batches}
    probe = Probe(known.name, known.seed, variables, batches, one.late, one.tails, frozenset(frozen.kept))
    return EdgeProbe(probe, one.calls, one.training, one.exact, one.guarded, one.overflows)
