"""The order of work: cases to a verdict. The only module that knows it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from equiv.case import Case
from equiv.checks import structure
from equiv.environment import environment
from equiv.errors import CaseError, EquivError, NotRun
from equiv.judge import CHECKS, compare_candidates
from equiv.load import CaseFile, LoadedCase, load
from equiv.observe import outline
from equiv.observed import Comparison, Noise
from equiv.prove_only import prove_candidates
from equiv.results import CaseResult, CheckResult, DeviationResult, Finding, LeafResult, RunResult, verdict_of
from equiv.summary import summarise
from equiv.workshop import Workshop, open_workshop

Progress = Callable[[str], None]


def run_cases(
    files: list[CaseFile], progress: Progress = lambda _: None, prove_only: bool = False
) -> Iterator[CaseResult]:
    """Every case to its result, one after the other; a case that cannot be used is a result too."""
    for file in files:
        started = time.perf_counter()
        progress(file.name)
        try:
            result = run_case(load(file), progress, prove_only)
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


def run_case(loaded: LoadedCase, progress: Progress = lambda _: None, prove_only: bool = False) -> CaseResult:
    """One case: every candidate against the reference. What breaks in one candidate leaves the others alone.

    Args:
        loaded: the case.
        progress: told what is being done.
        prove_only: prove what can be proved, and run nothing.

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
    told: tuple[Finding, ...] = ()
    if ready and prove_only:
        checks += prove_candidates(workshop, ready)
    elif ready:
        found, told = compare_candidates(workshop, ready, lambda stage: progress(f"{name}: {stage}"))
        checks += found
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
        probes=told,
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
