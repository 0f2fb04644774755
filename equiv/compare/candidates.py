"""Candidates beside the reference: proofs first, numbers for the rest, then every check."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from equiv.compare.checks import gradients, outputs, randomness, state, structure, train
from equiv.compare.explain.divergence import walked
from equiv.compare.explain.locate import located
from equiv.compare.numeric.difference_map import with_spreads
from equiv.compare.numeric.probe_set import SEEDS, probes
from equiv.compare.numeric.rounding import noise_of
from equiv.compare.numeric.run_port import Prepared, observe, outline, prepare, sample
from equiv.compare.observation import Comparison, Noise, Observed, Sample
from equiv.compare.proofs import needed_in_float64, prove_all
from equiv.compare.sensitivity.probe_adequacy import adequacy
from equiv.compare.sensitivity.proof_mutation import tampered
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError, NotRun
from equiv.programs.built_case import Workshop
from equiv.programs.probes import Probe
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import Traced, trace_port


def admit(workshop: Workshop, reference: Observed, candidates: Sequence[str]) -> tuple[list[str], list[CheckResult]]:
    """The candidates that can be run, and what is known of all: their structure, or why they cannot.

    Args:
        workshop: the case.
        reference: its leaves.
        candidates: by backend.
    """
    ready: list[str] = []
    checks: list[CheckResult] = []
    for candidate in candidates:
        if problem := workshop.problems.get(candidate):
            checks += _stopped(candidate, problem)
            continue
        comparison = Comparison(workshop.case, reference, outline(workshop, candidate), Noise({}, {}, {}))
        result = structure.check(comparison)
        checks.append(result)
        if broken := [item for item in result.findings if item.grade == "refuted" and item.place.startswith("leaf ")]:
            note = f"{broken[0].place}: {broken[0].note}"
            checks += [CheckResult(later.NAME, candidate, "blocked", note) for later in CHECKS[1:]]
        else:
            ready.append(candidate)
    return ready, checks


def in_order(checks: Sequence[CheckResult], candidates: Sequence[str]) -> list[CheckResult]:
    """By candidate, then as in `equiv.core.results.CHECKS`."""
    order = [module.NAME for module in CHECKS]
    return sorted(checks, key=lambda check: (candidates.index(check.candidate), order.index(check.check)))


def _stopped(candidate: str, problem: EquivError) -> list[CheckResult]:
    grade = "not run" if isinstance(problem, NotRun) else "error"
    first, *later = CHECKS
    blocked = [CheckResult(check.NAME, candidate, "blocked", f"{first.NAME}: {problem}") for check in later]
    finding = Finding(candidate, grade, note=str(problem))
    return [CheckResult(first.NAME, candidate, grade, str(problem), (finding,)), *blocked]


CHECKS: tuple[ModuleType, ...] = (structure, randomness, outputs, gradients, state, train)
"""In the order of `equiv.core.results.CHECKS`."""


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
    workshop: Workshop,
    prepared: Prepared,
    seeds: Mapping[str, int] = SEEDS,
    stage: Stage = lambda _: None,
    proved: bool = False,
) -> Reference:
    """Run the compiled reference on the probes of some seeds, and measure what rounding does to it.

    Args:
        workshop: the case.
        prepared: the compiled reference.
        seeds: probe name to seed.
        stage: told what is being done.
        proved: whether numbers only double-check proofs.
    """
    given, used = _reference_samples(workshop, prepared, seeds, proved)
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
    return [with_spreads(comparison, result) for result in results if result is not None]


@dataclass(frozen=True)
class Started:
    """Candidates and reference, traced and proved, and compiling.

    Attributes:
        workshop: the case.
        left: the reference.
        traced: the candidates that could be traced.
        proofs: of each.
        waits: what waits for the compiled reference and each compiled candidate, by backend.
        checks: of the candidates that cannot be run.
        told: whether each proof would notice a changed equation.
        proved: whether every output of every candidate is proved, so that numbers only double-check.
    """

    workshop: Workshop
    left: Traced
    traced: Mapping[str, Traced]
    proofs: Mapping[str, Proofs]
    waits: Mapping[str, Callable[[], Prepared]]
    checks: tuple[CheckResult, ...]
    told: tuple[Finding, ...]
    proved: bool


def start_candidates(workshop: Workshop, candidates: list[str], stage: Stage) -> Started:
    """Trace and prove; what has to be compiled is compiled beside the main thread from here on.

    Raises:
        EquivError: the reference cannot be traced or compiled.
    """
    name = next(iter(workshop.case.models))
    stage("tracing")
    left = trace_port(workshop, name)
    checks: list[CheckResult] = []
    traced = trace_candidates(workshop, candidates, checks)
    stage("proving")
    proofs = prove_all(left, traced)
    needed = needed_in_float64(left.table, left.programs, proofs)
    every = frozenset[str]().union(*needed.values())
    waits = {name: prepare(workshop, left, every, quick=not every)}
    for candidate, right in traced.items():
        try:
            waits[candidate] = prepare(workshop, right, needed[candidate], quick=not every)
        except EquivError as error:
            checks += failed(candidate, error)
    return Started(workshop, left, traced, proofs, waits, tuple(checks), tampered(traced, proofs), not every)


def compare_candidates(started: Started, stage: Stage) -> tuple[list[CheckResult], tuple[Finding, ...]]:
    """Every check after structure for all candidates, and whether the probes can tell.

    Raises:
        EquivError: the reference cannot be compiled or run.
    """
    workshop, left, waits = started.workshop, started.left, dict(started.waits)
    checks = list(started.checks)
    name = left.port.backend
    stage(f"compiling {name}")
    compiled = waits.pop(name)()
    reference = sample_reference(workshop, compiled, stage=stage, proved=started.proved)
    for candidate, ready in waits.items():
        stage(f"compiling {candidate}")
        try:
            found = check_candidate(workshop, reference, ready(), started.proofs[candidate])
            right = started.traced[candidate]
            checks += walked(located(found, left, right), left, right, reference.probes[0], workshop.case.steps)
        except EquivError as error:
            checks += failed(candidate, error)
    stage("trying the probes")
    given = reference.observed.samples["0"].native
    moved = adequacy(compiled, reference.probes, given, reference.noise)
    return checks, (*moved, *started.told)


def trace_candidates(workshop: Workshop, candidates: list[str], checks: list[CheckResult]) -> dict[str, Traced]:
    """The candidates that can be traced; what is known of the others goes into `checks`."""
    traced = {}
    for candidate in candidates:
        try:
            traced[candidate] = trace_port(workshop, candidate)
        except EquivError as error:
            checks += failed(candidate, error)
    return traced


def failed(candidate: str, error: EquivError) -> list[CheckResult]:
    """Every check after structure of a candidate that cannot be traced or run."""
    finding = Finding(candidate, "error", note=str(error))
    return [CheckResult(check.NAME, candidate, "error", str(error), (finding,)) for check in CHECKS[1:]]


def _reference_samples(
    workshop: Workshop, prepared: Prepared, seeds: Mapping[str, int], proved: bool
) -> tuple[dict[str, Sample], list[Probe]]:
    given: dict[str, Sample] = {}
    used: list[Probe] = []
    for spread in SPREADS:
        used = probes(workshop, prepared.table, spread, seeds, proved)
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
