"""Candidates beside the reference: proofs first, numbers for the rest, then every check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from equiv.adequacy import adequacy
from equiv.checks import gradients, outputs, randomness, state, structure, train
from equiv.errors import EquivError
from equiv.observe import SEEDS, Prepared, noise_of, observe, prepare, probes, sample
from equiv.observed import Comparison, Noise, Observed, Proofs, Sample
from equiv.probe import Probe
from equiv.proofs import located, needed_in_float64, prove_all
from equiv.results import CheckResult, Finding
from equiv.tampering import tampered
from equiv.traced import Traced, trace_port
from equiv.workshop import Workshop

CHECKS: tuple[ModuleType, ...] = (structure, randomness, outputs, gradients, state, train)
"""In the order of `equiv.results.CHECKS`."""

SPREADS = (1.0, 0.5, 0.25, 0.125)
"""Factors on the probe's parameters, tried in turn until the reference's numbers are finite."""

Stage = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class Reference:
    """The reference as observed, with what its rounding does; shared by all candidates.

    Attributes:
        observed: outputs on every probe.
        probes: those probes.
        noise: the budget's parts.
    """

    observed: Observed
    probes: tuple[Probe, ...]
    noise: Noise


def sample_reference(
    workshop: Workshop, prepared: Prepared, seeds: Mapping[str, int] = SEEDS, stage: Stage = lambda _: None
) -> Reference:
    """Run the compiled reference on the probes of some seeds, and measure what rounding does to it."""
    given, used = _reference_samples(workshop, prepared, seeds)
    stage("measuring rounding")
    noise = noise_of(prepared, given, used)
    return Reference(observe(prepared, given), tuple(used), noise)


def check_candidate(
    workshop: Workshop, reference: Reference, candidate: Prepared, proofs: Proofs | None = None
) -> list[CheckResult]:
    """Every check after structure, for one compiled candidate.

    Raises:
        EquivError: it cannot be run.
    """
    case = workshop.case
    given = reference.observed.samples
    converted = {known.leaf for known in case.known_differences if known.leaf in candidate.table.names()}
    samples = {
        probe.name: sample(candidate, probe, given[probe.name] if probe.name == "cold" else None, converted)
        for probe in reference.probes
    }
    comparison = Comparison(case, reference.observed, observe(candidate, samples), reference.noise, proofs or {})
    results = [module.check(comparison) for module in CHECKS[1:]]
    return [result for result in results if result is not None]


def compare_candidates(
    workshop: Workshop, candidates: list[str], stage: Stage
) -> tuple[list[CheckResult], tuple[Finding, ...]]:
    """Every check after structure for all candidates, and whether the probes can tell.

    Raises:
        EquivError: the reference cannot be traced, compiled or run.
    """
    name = next(iter(workshop.case.models))
    stage("tracing")
    left = trace_port(workshop, name)
    checks: list[CheckResult] = []
    traced = _trace_candidates(workshop, candidates, checks)
    stage("proving")
    proofs = prove_all(left, traced)
    needed = needed_in_float64(left, proofs)
    stage(f"compiling {name}")
    every = frozenset[str]().union(*needed.values())
    compiled = prepare(workshop, left, every, quick=not every)
    reference = sample_reference(workshop, compiled, stage=stage)
    for candidate, right in traced.items():
        stage(f"compiling {candidate}")
        try:
            ready = prepare(workshop, right, needed[candidate], quick=not every)
            checks += located(check_candidate(workshop, reference, ready, proofs[candidate]), left, right)
        except EquivError as error:
            checks += _failed(candidate, error)
    stage("trying the probes")
    given = reference.observed.samples["0"].native
    moved = adequacy(compiled, reference.probes, given, reference.noise)
    return checks, (*moved, *tampered(traced, proofs))


def _trace_candidates(workshop: Workshop, candidates: list[str], checks: list[CheckResult]) -> dict[str, Traced]:
    traced = {}
    for candidate in candidates:
        try:
            traced[candidate] = trace_port(workshop, candidate)
        except EquivError as error:
            checks += _failed(candidate, error)
    return traced


def _failed(candidate: str, error: EquivError) -> list[CheckResult]:
    finding = Finding(candidate, "error", note=str(error))
    return [CheckResult(check.NAME, candidate, "error", str(error), (finding,)) for check in CHECKS[1:]]


def _reference_samples(
    workshop: Workshop, prepared: Prepared, seeds: Mapping[str, int]
) -> tuple[dict[str, Sample], list[Probe]]:
    given: dict[str, Sample] = {}
    used: list[Probe] = []
    for spread in SPREADS:
        used = probes(workshop, prepared.table, spread, seeds)
        given = {probe.name: sample(prepared, probe) for probe in used}
        if "wide" in given and not _finite(given["wide"]):
            # The reference itself overflows there: it says nothing.
            used, given = [one for one in used if one.name != "wide"], {**given}
            del given["wide"]
        if all(_finite(one) for one in given.values()):
            break
    return given, used


def _finite(given: Sample) -> bool:
    arrays = [array for array in given.native.values() if "float" in str(array.dtype)]
    return all(np.isfinite(array.astype("float64")).all() for array in arrays)
