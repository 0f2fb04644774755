"""Compare candidates with the reference: proofs first, numbers for the rest, then every check."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equiv.comparison.checks import CHECKS
from equiv.comparison.explain.divergence import add_divergence
from equiv.comparison.explain.locate import add_first_differences
from equiv.comparison.numeric.difference_map import add_spreads
from equiv.comparison.numeric.probe_set import PROBE_SEEDS, make_probes
from equiv.comparison.numeric.rounding import measure_noise
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs, compile_port, describe_port, run_on_probe
from equiv.comparison.observation import (
    FRESH_STATE,
    LARGE_INPUTS,
    Comparison,
    PortOutputs,
    RoundingNoise,
    Sample,
    find_known_differences,
)
from equiv.comparison.proofs import needed_in_float64, prove_all
from equiv.comparison.sensitivity.probe_sensitivity import measure_sensitivity
from equiv.comparison.sensitivity.proof_mutation import mutate_proofs
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.checks import CHECK_NAMES
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.output_name import ProgramName
from equiv.core.results import CaseResult, CheckResult, DeviationResult, Finding, LeafResult, ProbeTrial
from equiv.core.verdict import verdict_of
from equiv.errors import EquivError, NotRun
from equiv.programs.built_case import BuiltCase
from equiv.programs.probes import Probe
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import TracedPort, trace_port


def split_by_structure(
    built_case: BuiltCase, reference: PortOutputs, candidates: Sequence[str]
) -> tuple[list[str], list[CheckResult]]:
    """Apply the structure gate: the candidates that can be run, and the structure check of every candidate.

    A candidate that could not be built, or whose leaves differ, gets its later checks as `blocked`.

    Args:
        built_case: the case.
        reference: its leaves.
        candidates: names of the ports.
    """
    ready: list[str] = []
    checks: list[CheckResult] = []
    for candidate in candidates:
        if problem := built_case.problems.get(candidate):
            checks += _structure_failure(candidate, problem)
            continue
        comparison = Comparison(
            built_case.case, reference, describe_port(built_case, candidate), RoundingNoise({}, {}, {})
        )
        result = CHECKS[STRUCTURE].run(comparison)
        assert result is not None, "every model has a structure"
        checks.append(result)
        if broken := [item for item in result.findings if item.grade == "refuted" and item.structure]:
            note = f"{broken[0].place}: {broken[0].note}"
            checks += [CheckResult(later, candidate, "blocked", note) for later in LATER_CHECKS]
        else:
            ready.append(candidate)
    return ready, checks


def sort_checks(checks: Sequence[CheckResult], candidates: Sequence[str]) -> list[CheckResult]:
    """Sort checks by candidate, then as in `equiv.core.checks.CHECK_NAMES`."""
    return sorted(checks, key=lambda check: (candidates.index(check.candidate), CHECK_NAMES.index(check.check)))


def _structure_failure(candidate: str, problem: EquivError) -> list[CheckResult]:
    grade = "not run" if isinstance(problem, NotRun) else "error"
    blocked = [CheckResult(later, candidate, "blocked", f"{STRUCTURE}: {problem}") for later in LATER_CHECKS]
    finding = Finding(candidate, grade, note=str(problem))
    return [CheckResult(STRUCTURE, candidate, grade, str(problem), (finding,)), *blocked]


STRUCTURE, *LATER_CHECKS = CHECK_NAMES
"""The check that runs nothing, and those that need its leaves to agree."""

PARAMETER_SCALES = (1.0, 0.5, 0.25, 0.125)
"""Factors on the probe's parameters, tried one after the other until the reference's outputs are finite."""

ReportStage = Callable[[str], None]
"""Called with a text for every stage of the work."""


@dataclass(frozen=True)
class Reference:
    """The outputs of the reference and the response of its rounding; shared by all candidates.

    Attributes:
        observed: outputs on every probe.
        probes: those probes.
        noise: from which budgets are computed.
    """

    observed: PortOutputs
    probes: tuple[Probe, ...]
    noise: RoundingNoise


def run_reference(
    built_case: BuiltCase,
    compiled: CompiledPort,
    seeds: Mapping[str, int] = PROBE_SEEDS,
    stage: ReportStage = lambda _: None,
    proved: bool = False,
) -> Reference:
    """Run the compiled reference on the probes of some seeds, and measure its rounding.

    Args:
        built_case: the case.
        compiled: the compiled reference.
        seeds: probe name to seed.
        stage: called with a text for every stage.
        proved: whether every output is proved, so that numbers only double-check.
    """
    given, used = _reference_samples(built_case, compiled, seeds, proved)
    stage("measuring rounding")
    noise = measure_noise(compiled, given, used)
    return Reference(collect_outputs(compiled, given), tuple(used), noise)


def check_candidate(
    built_case: BuiltCase, reference: Reference, candidate: CompiledPort, proofs: Proofs | None = None
) -> list[CheckResult]:
    """Run every check after structure for one compiled candidate.

    Raises:
        EquivError: it cannot be run.
    """
    case = built_case.case
    given = reference.observed.samples
    differences = find_known_differences(case, reference.observed.table, candidate.table)
    converted = {leaf for leaf in differences if leaf in candidate.table.names()}
    samples = {
        probe.name: run_on_probe(candidate, probe, given[probe.name] if probe.name == FRESH_STATE else None, converted)
        for probe in reference.probes
    }
    comparison = Comparison(
        case, reference.observed, collect_outputs(candidate, samples), reference.noise, proofs or {}
    )
    results = [CHECKS[name].run(comparison) for name in LATER_CHECKS]
    return [add_spreads(comparison, result) for result in results if result is not None]


@dataclass(frozen=True)
class RunningComparison:
    """Reference and candidates after tracing and proving, while they compile.

    Attributes:
        built_case: the case.
        reference: the traced reference.
        traced: the candidates that could be traced.
        proofs: of each.
        compiling: port to a function that waits for its compilation.
        checks: of the candidates that cannot be traced or compiled.
        proof_mutations: whether each proof breaks when an equation is changed.
        proved: whether every output of every candidate is proved, so that numbers only double-check.
    """

    built_case: BuiltCase
    reference: TracedPort
    traced: Mapping[str, TracedPort]
    proofs: Mapping[str, Proofs]
    compiling: Mapping[str, Callable[[], CompiledPort]]
    checks: tuple[CheckResult, ...]
    proof_mutations: tuple[ProbeTrial, ...]
    proved: bool


def start_candidates(built_case: BuiltCase, candidates: list[str], stage: ReportStage) -> RunningComparison:
    """Trace and prove all ports, and start to compile them in a background thread.

    Raises:
        EquivError: the reference cannot be traced or compiled.
    """
    name = next(iter(built_case.case.models))
    stage("tracing")
    left = trace_port(built_case, name)
    checks: list[CheckResult] = []
    traced = trace_candidates(built_case, candidates, checks)
    stage("proving")
    proofs = prove_all(left, traced)
    needed = needed_in_float64(left.table, left.programs, proofs)
    every = frozenset[ProgramName]().union(*needed.values())
    compiling = {name: compile_port(built_case, left, every, quick=not every)}
    for candidate, right in traced.items():
        try:
            compiling[candidate] = compile_port(built_case, right, needed[candidate], quick=not every)
        except EquivError as error:
            checks += failed_checks(candidate, error)
    return RunningComparison(
        built_case, left, traced, proofs, compiling, tuple(checks), mutate_proofs(traced, proofs), not every
    )


def compare_candidates(
    started: RunningComparison, stage: ReportStage
) -> tuple[list[CheckResult], tuple[ProbeTrial, ...]]:
    """Run every check after structure for all candidates, and measure the sensitivity of the probes.

    Raises:
        EquivError: the reference cannot be compiled or run.
    """
    built_case, left, compiling = started.built_case, started.reference, dict(started.compiling)
    checks = list(started.checks)
    name = left.port.name
    stage(f"compiling {name}")
    compiled = compiling.pop(name)()
    reference = run_reference(built_case, compiled, stage=stage, proved=started.proved)
    for candidate, ready in compiling.items():
        stage(f"compiling {candidate}")
        try:
            found = check_candidate(built_case, reference, ready(), started.proofs[candidate])
            right = started.traced[candidate]
            checks += add_divergence(
                add_first_differences(found, left, right), left, right, reference.probes[0], built_case.case.steps
            )
        except EquivError as error:
            checks += failed_checks(candidate, error)
    stage("measuring the sensitivity of the probes")
    given = reference.observed.samples["0"].native
    trials = measure_sensitivity(compiled, reference.probes, given, reference.noise, built_case.case.budget_factor)
    return checks, (*trials, *started.proof_mutations)


def trace_candidates(built_case: BuiltCase, candidates: list[str], checks: list[CheckResult]) -> dict[str, TracedPort]:
    """Trace the candidates; checks of those that cannot be traced are appended to `checks`."""
    traced = {}
    for candidate in candidates:
        try:
            traced[candidate] = trace_port(built_case, candidate)
        except EquivError as error:
            checks += failed_checks(candidate, error)
    return traced


def failed_checks(candidate: str, error: EquivError) -> list[CheckResult]:
    """Give every check after structure as an error, for a candidate that cannot be traced, compiled or run."""
    finding = Finding(candidate, "error", note=str(error))
    return [CheckResult(name, candidate, "error", str(error), (finding,)) for name in LATER_CHECKS]


def _reference_samples(
    built_case: BuiltCase, compiled: CompiledPort, seeds: Mapping[str, int], proved: bool
) -> tuple[dict[str, Sample], list[Probe]]:
    given: dict[str, Sample] = {}
    used: list[Probe] = []
    for spread in PARAMETER_SCALES:
        used = make_probes(built_case, compiled.table, spread, seeds, proved)
        given = {probe.name: run_on_probe(compiled, probe) for probe in used}
        if LARGE_INPUTS in given and not _all_finite(given[LARGE_INPUTS]):
            # The reference itself overflows there: its outputs cannot be compared.
            used, given = [one for one in used if one.name != LARGE_INPUTS], {**given}
            del given[LARGE_INPUTS]
        if all(_all_finite(one) for one in given.values()):
            break
    return given, used


def _all_finite(given: Sample) -> bool:
    arrays = [array for array in given.native.values() if "float" in str(array.dtype)]
    return all(np.isfinite(array.astype("float64")).all() for array in arrays)


def make_case_result(
    loaded: LoadedCase,
    reference: str,
    built_case: BuiltCase,
    checks: Sequence[CheckResult],
    trials: tuple[ProbeTrial, ...],
    tables: Mapping[str, LeafTable],
) -> CaseResult:
    """Put everything that was found of a case under its verdicts.

    Args:
        loaded: the case.
        reference: what the results call the reference.
        built_case: its built ports.
        checks: of every candidate, in any order.
        trials: of the probes and proofs.
        tables: port to leaf table, the reference's included.
    """
    case = loaded.case
    candidates = tuple(name for name in built_case.case.models if name != reference)
    ordered = tuple(sort_checks(checks, candidates))
    return CaseResult(
        name=loaded.name,
        lesson=loaded.lesson,
        guide=case.guide,
        reference=reference,
        candidates=candidates,
        verdicts={who: verdict_of(tuple(item for item in ordered if item.candidate == who)) for who in candidates},
        checks=ordered,
        leaves=_leaf_results(tables),
        trials=trials,
        unmapped_leaves=sum(_count_unmapped(built_case, name) for name in built_case.built),
        deviations=tuple(_deviation_results(case, tables)),
        path=loaded.path,
        sources=dict(loaded.sources),
        source_digest=loaded.source_digest,
    )


def _deviation_results(case: Case, tables: Mapping[str, LeafTable]) -> Iterator[DeviationResult]:
    """Yield every deviation by port: one of a library holds for each port of it."""
    for one in case.deviations:
        ports = [table.port for table in tables.values() if one.backend in (table.port, table.library)]
        for port in ports or [one.backend]:  # a port that could not be built has no table
            yield DeviationResult(**{**vars(one), "backend": port})


def _leaf_results(tables: Mapping[str, LeafTable]) -> tuple[LeafResult, ...]:
    """List every canonical leaf with its path, shape and layout in each port."""
    rows: dict[str, dict[str, MappedLeaf]] = {}
    for port, table in tables.items():
        for leaf in table.leaves:
            rows.setdefault(leaf.name, {})[port] = leaf
    return tuple(_leaf_result(name, leaves) for name, leaves in rows.items())


def _leaf_result(name: str, leaves: Mapping[str, MappedLeaf]) -> LeafResult:
    spec = next(iter(leaves.values())).spec
    return LeafResult(
        name,
        spec.shape,
        spec.dtype,
        places={port: str(leaf.key) for port, leaf in leaves.items()},
        shapes={port: leaf.native_shape for port, leaf in leaves.items()},
        layouts={port: leaf.storage_description for port, leaf in leaves.items() if leaf.storage_description},
    )


def _count_unmapped(built_case: BuiltCase, port: str) -> int:
    mapped = {leaf.key for leaf in built_case.built[port].table.leaves}
    return len(set(describe_port(built_case, port).native_paths) - mapped)
