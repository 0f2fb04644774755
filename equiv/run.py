"""The order of work: cases to a verdict. The only module that knows it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import ModuleType

import numpy as np

from equiv.case import Case
from equiv.checks import gradients, outputs, randomness, state, structure, train
from equiv.environment import environment
from equiv.errors import CaseError, EquivError, NotRun
from equiv.load import CaseFile, LoadedCase, load
from equiv.observe import (
    SEEDS,
    Prepared,
    cold_probe,
    noise_of,
    observe,
    outline,
    prepare,
    probes,
    sample,
)
from equiv.observed import Comparison, Noise, Observed, Proofs, Sample
from equiv.probe import Probe
from equiv.proofs import located, needed_in_float64, prove_all
from equiv.results import CaseResult, CheckResult, DeviationResult, Finding, LeafResult, RunResult, verdict_of
from equiv.summary import summarise
from equiv.traced import Traced, trace_port
from equiv.workshop import Workshop, open_workshop

CHECKS: tuple[ModuleType, ...] = (structure, randomness, outputs, gradients, state, train)
"""In the order of `equiv.results.CHECKS`."""

SPREADS = (1.0, 0.5, 0.25, 0.125)
"""Factors on the probe's parameters, tried in turn until the reference's numbers are finite."""

Progress = Callable[[str], None]


def run_cases(files: list[CaseFile], progress: Progress = lambda _: None) -> Iterator[CaseResult]:
    """Every case to its result, one after the other; a case that cannot be used is a result too."""
    for file in files:
        started = time.perf_counter()
        progress(file.name)
        try:
            result = run_case(load(file), progress)
        except EquivError as error:
            result = CaseResult(file.name, "", "", "", (), {}, (), problem=str(error))
        except Exception as error:  # noqa: BLE001 - the other cases still finish; the result says what broke
            problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
            result = CaseResult(file.name, "", "", "", (), {}, (), problem=problem)
        yield replace(result, seconds=round(time.perf_counter() - started, 3))


def conclude(cases: list[CaseResult], started: datetime, seconds: float) -> RunResult:
    """All results of a run under one verdict."""
    verdict, headline = summarise(cases)
    return RunResult(verdict, headline, environment(), tuple(cases), started.isoformat(), round(seconds, 3))


def run_case(loaded: LoadedCase, progress: Progress = lambda _: None) -> CaseResult:
    """One case: every candidate against the reference. What breaks in one candidate leaves the others alone.

    Raises:
        CaseError: the case as a whole cannot be used: its batch, its methods, its reference.
    """
    case, name = loaded.case, loaded.name
    reference, *candidates = case.models
    workshop = open_workshop(case)
    checks: list[CheckResult] = []
    if problem := workshop.problems.get(reference):
        raise CaseError(f"{problem} The reference is {reference}: without it nothing can be compared.")
    ready = _ready(case, workshop, candidates, checks)
    if ready:
        checks += _compare(workshop, ready, lambda stage: progress(f"{name}: {stage}"))
    order = [module.NAME for module in CHECKS]
    checks.sort(key=lambda check: (candidates.index(check.candidate), order.index(check.check)))
    return CaseResult(
        name=name,
        lesson=loaded.lesson,
        guide=case.guide,
        reference=reference,
        candidates=tuple(candidates),
        verdicts={who: verdict_of(tuple(item for item in checks if item.candidate == who)) for who in candidates},
        checks=tuple(checks),
        leaves=_leaf_results(workshop),
        left_over=sum(_left_over(workshop, backend) for backend in workshop.built),
        deviations=tuple(DeviationResult(**vars(deviation)) for deviation in case.deviations),
    )


def _ready(case: Case, workshop: Workshop, candidates: list[str], checks: list[CheckResult]) -> list[str]:
    """The candidates that can be run; what is known of the others goes into `checks`."""
    reference = next(iter(case.models))
    ready = []
    for candidate in candidates:
        if problem := workshop.problems.get(candidate):
            checks += _stopped(candidate, problem)
            continue
        result = structure.check(
            Comparison(case, outline(workshop, reference), outline(workshop, candidate), Noise({}, {}, {}))
        )
        checks.append(result)
        if broken := [item for item in result.findings if item.grade == "refuted" and item.place.startswith("leaf ")]:
            note = f"{broken[0].place}: {broken[0].note}"
            checks += [CheckResult(later.NAME, candidate, "blocked", note) for later in CHECKS[1:]]
        else:
            ready.append(candidate)
    return ready


def _stopped(candidate: str, problem: EquivError) -> list[CheckResult]:
    grade = "not run" if isinstance(problem, NotRun) else "error"
    first, *later = CHECKS
    blocked = [CheckResult(check.NAME, candidate, "blocked", f"{first.NAME}: {problem}") for check in later]
    finding = Finding(candidate, grade, note=str(problem))
    return [CheckResult(first.NAME, candidate, grade, str(problem), (finding,)), *blocked]


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
    workshop: Workshop, prepared: Prepared, seeds: Mapping[str, int] = SEEDS, stage: Progress = lambda _: None
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


def _compare(workshop: Workshop, candidates: list[str], stage: Progress) -> list[CheckResult]:
    name = next(iter(workshop.case.models))
    stage("tracing")
    left = trace_port(workshop, name)
    checks: list[CheckResult] = []
    traced = _trace_candidates(workshop, candidates, checks)
    stage("proving")
    proofs = prove_all(left, traced)
    needed = needed_in_float64(left, proofs)
    stage(f"compiling {name}")
    reference = sample_reference(workshop, prepare(workshop, left, frozenset().union(*needed.values())), stage=stage)
    for candidate, right in traced.items():
        stage(f"compiling {candidate}")
        try:
            ready = prepare(workshop, right, needed[candidate])
            checks += located(check_candidate(workshop, reference, ready, proofs[candidate]), left, right)
        except EquivError as error:
            checks += _failed(candidate, error)
    return checks


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
        if prepared.table.names("state"):
            used.append(cold_probe(used[0], prepared.table))
        given = {probe.name: sample(prepared, probe) for probe in used}
        if all(_finite(one) for one in given.values()):
            break
    return given, used


def _finite(given: Sample) -> bool:
    arrays = [array for array in given.native.values() if "float" in str(array.dtype)]
    return all(np.isfinite(array.astype("float64")).all() for array in arrays)


def _leaf_results(workshop: Workshop) -> tuple[LeafResult, ...]:
    """The layer table as mapped: every canonical leaf with its place in each library."""
    places: dict[str, dict[str, str]] = {}
    specs: dict[str, tuple[tuple[int, ...], str]] = {}
    for backend, built in workshop.built.items():
        for leaf in built.table.leaves:
            places.setdefault(leaf.name, {})[backend] = str(leaf.key)
            specs.setdefault(leaf.name, (leaf.spec.shape, leaf.spec.dtype))
    return tuple(LeafResult(name, *specs[name], where) for name, where in places.items())


def _left_over(workshop: Workshop, backend: str) -> int:
    covered = {leaf.key for leaf in workshop.built[backend].table.leaves}
    return len(set(outline(workshop, backend).native_paths) - covered)
