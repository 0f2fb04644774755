"""The order of work: cases to a verdict. The only module that knows it."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from equiv.backends.environment import environment
from equiv.compare.candidates import Started, admit, compare_candidates, in_order, start_candidates
from equiv.compare.frozen.bundle import Frozen
from equiv.compare.frozen.compare import run_against
from equiv.compare.initial_values import initial
from equiv.compare.longer_batch import strengthened
from equiv.compare.numeric.run_port import outline
from equiv.compare.prove_only import prove_candidates
from equiv.compare.selfcheck.selfcheck import selfcheck
from equiv.core.case_files import CaseFile, LoadedCase, load
from equiv.core.headline import summarise
from equiv.core.leaves import MappedLeaf
from equiv.core.results import CaseResult, CheckResult, DeviationResult, Finding, LeafResult, RunResult
from equiv.core.selfcheck_results import FaultMatrix, matrix
from equiv.core.verdict import verdict_of
from equiv.errors import CaseError, EquivError
from equiv.programs.built_case import Workshop, open_workshop
from equiv.programs.prover.algebra import CONDITIONS
from equiv.programs.prover.proof import WIDE

Progress = Callable[[str], None]


Result = TypeVar("Result")


AHEAD = 2
"""Cases that are begun before the first of them is finished."""


@dataclass(frozen=True)
class Asked:
    """What is asked of every case beside its verdict.

    Attributes:
        prove_only: prove what can be proved, and run nothing.
        faults: plant faults in every candidate too, and say which are noticed.
        starts: compare initial values too.
        against: a frozen reference in the place of the cases' own.
    """

    prove_only: bool = False
    faults: bool = False
    starts: bool = False
    against: Frozen | None = None


def run_cases(
    files: list[CaseFile], progress: Progress = lambda _: None, asked: Asked | None = None
) -> Iterator[CaseResult]:
    """Every case to its result, in order; a case that cannot be used is a result too.

    While a case compiles the next ones are traced and proved.
    """
    begun: deque[Callable[[], CaseResult]] = deque()
    for file in files:
        begun.append(_begin(file, progress, asked or Asked()))
        if len(begun) > AHEAD:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _begin(file: CaseFile, progress: Progress, asked: Asked) -> Callable[[], CaseResult]:
    """Begin a case; what is returned finishes it. The seconds are those spent on it, not those in between."""
    clock = time.perf_counter()
    progress(file.name)
    if (frozen := asked.against) is None:
        started = _tried(file, lambda: start_case(load(file), progress, asked.prove_only))
    else:
        started = _tried(file, lambda: run_against(load(file), frozen, progress))
    spent = time.perf_counter() - clock

    def finish() -> CaseResult:
        clock, result = time.perf_counter(), started
        if isinstance(started, StartedCase):
            result = _tried(file, partial(finish_case, started, progress))
        assert isinstance(result, CaseResult)
        if asked.starts and isinstance(started, StartedCase):
            progress(f"{file.name}: comparing initial values")
            result = replace(result, starts=initial(started.workshop))
        if asked.faults and isinstance(started, StartedCase):
            progress(f"{file.name}: planting faults")
            result = replace(result, faults=_planted(started.loaded))
        return replace(result, seconds=round(spent + time.perf_counter() - clock, 3))

    return finish


def _planted(loaded: LoadedCase) -> FaultMatrix:
    try:
        return matrix(selfcheck(loaded))
    except EquivError as error:
        return FaultMatrix((), problem=str(error))


def _tried(file: CaseFile, function: Callable[[], Result]) -> Result | CaseResult:
    try:
        return function()
    except EquivError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the other cases still finish; the result says what broke
        problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
    return CaseResult(file.name, "", "", "", (), {}, (), problem=problem)


def conclude(cases: list[CaseResult], started: datetime, seconds: float) -> RunResult:
    """All results of a run under one verdict."""
    verdict, headline = summarise(cases)
    told = tuple(cases), started.isoformat(), round(seconds, 3)
    return RunResult(verdict, headline, environment(), *told, rewrites=_rewrites(cases))


def _rewrites(cases: list[CaseResult]) -> dict[str, str]:
    """The rewrites that proofs of these cases name, each with its condition."""
    notes = {item.note for case in cases for check in case.checks for item in check.findings if item.grade == MODULO}
    used = {name for note in notes for name in note.split("; ")}
    wide = {WIDE: "the float64 traces are compared: float32 rounds 1 - 0.99 and 0.01 apart, real numbers do not"}
    return {name: condition for name, condition in (CONDITIONS | wide).items() if name in used}


MODULO = "proved modulo"


@dataclass(frozen=True)
class StartedCase:
    """A case with its ports built, traced and proved, and compiling.

    Attributes:
        loaded: the case.
        workshop: its ports.
        checks: what is known already.
        started: the candidates that can be run; None where there are none or only proofs were asked for.
    """

    loaded: LoadedCase
    workshop: Workshop
    checks: tuple[CheckResult, ...]
    started: Started | None


def run_case(loaded: LoadedCase, progress: Progress = lambda _: None, prove_only: bool = False) -> CaseResult:
    """One case: every candidate against the reference. What breaks in one candidate leaves the others alone.

    Args:
        loaded: the case.
        progress: told what is being done.
        prove_only: prove what can be proved, and run nothing.

    Raises:
        CaseError: the case as a whole cannot be used: its batch, its methods, its reference.
    """
    return finish_case(start_case(loaded, progress, prove_only), progress)


def start_case(loaded: LoadedCase, progress: Progress = lambda _: None, prove_only: bool = False) -> StartedCase:
    """The first half of `run_case`: all that needs no compiled program."""
    case, name = loaded.case, loaded.name
    reference, *candidates = case.models
    workshop = open_workshop(case)
    if problem := workshop.problems.get(reference):
        raise CaseError(f"{problem} The reference is {reference}: without it nothing can be compared.")
    ready, checks = admit(workshop, outline(workshop, reference), candidates)
    if ready and prove_only:
        checks += prove_candidates(workshop, ready)
    started = None
    if ready and not prove_only:
        started = start_candidates(workshop, ready, lambda stage: progress(f"{name}: {stage}"))
    return StartedCase(loaded, workshop, tuple(checks), started)


def finish_case(begun: StartedCase, progress: Progress = lambda _: None) -> CaseResult:
    """The second half of `run_case`: run, and judge."""
    loaded, workshop, checks = begun.loaded, begun.workshop, list(begun.checks)
    case, name = loaded.case, loaded.name
    reference, *candidates = case.models
    told: tuple[Finding, ...] = ()
    if begun.started is not None:

        def stage(text: str) -> None:
            progress(f"{name}: {text}")

        found = compare_candidates(begun.started, stage)
        found, told = strengthened(workshop, list(begun.started.traced), found, stage)
        checks += found
    checks = in_order(checks, candidates)
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
        path=loaded.path,
        sources=dict(loaded.sources),
        text=loaded.text,
    )


def _leaf_results(workshop: Workshop) -> tuple[LeafResult, ...]:
    """The layer table as mapped: every canonical leaf with its place in each library."""
    rows: dict[str, dict[str, MappedLeaf]] = {}
    for backend, built in workshop.built.items():
        for leaf in built.table.leaves:
            rows.setdefault(leaf.name, {})[backend] = leaf
    return tuple(_leaf_result(name, leaves) for name, leaves in rows.items())


def _leaf_result(name: str, leaves: dict[str, MappedLeaf]) -> LeafResult:
    spec = next(iter(leaves.values())).spec
    return LeafResult(
        name,
        spec.shape,
        spec.dtype,
        places={backend: str(leaf.key) for backend, leaf in leaves.items()},
        shapes={backend: leaf.native_shape for backend, leaf in leaves.items()},
        layouts={backend: leaf.rule for backend, leaf in leaves.items() if leaf.rule},
    )


def _left_over(workshop: Workshop, backend: str) -> int:
    covered = {leaf.key for leaf in workshop.built[backend].table.leaves}
    return len(set(outline(workshop, backend).native_paths) - covered)
