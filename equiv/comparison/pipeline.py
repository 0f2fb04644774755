"""Run cases: build, structure, trace, prove, compile, run, check; and give a verdict."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from equiv.backends.environment import describe_environment
from equiv.comparison.candidates import (
    RunningComparison,
    compare_candidates,
    make_case_result,
    split_by_structure,
    start_candidates,
)
from equiv.comparison.frozen.bundle import FrozenReference
from equiv.comparison.frozen.compare import compare_with_frozen
from equiv.comparison.initial_values import compare_initial_values
from equiv.comparison.longer_batch import compare_on_longer_batch
from equiv.comparison.numeric.run_port import describe_port
from equiv.comparison.prove_only import prove_candidates
from equiv.comparison.selfcheck.selfcheck import run_selfcheck
from equiv.core.case_files import CaseFile, LoadedCase, load_case
from equiv.core.headline import summarise_run
from equiv.core.results import CaseResult, CheckResult, ProbeTrial, RunResult
from equiv.core.selfcheck_results import FaultMatrix, fault_matrix
from equiv.errors import CaseError, EquivError
from equiv.programs.built_case import BuiltCase, build_case
from equiv.programs.prover.algebra import CONDITIONS
from equiv.programs.prover.proof import FLOAT64_CONSTANTS

ReportProgress = Callable[[str], None]

Returned = TypeVar("Returned")

CASES_AHEAD = 2
"""Number of cases that are started before the first of them is finished."""


@dataclass(frozen=True)
class RunOptions:
    """Options that hold for every case of a run.

    Attributes:
        prove_only: prove what can be proved, and run nothing.
        faults: plant faults in every candidate too, and record which are noticed.
        initial_values: compare the distributions of initial parameter values too.
        against: a frozen reference, used instead of the cases' own.
    """

    prove_only: bool = False
    faults: bool = False
    initial_values: bool = False
    against: FrozenReference | None = None


def run_cases(
    files: list[CaseFile], progress: ReportProgress = lambda _: None, options: RunOptions | None = None
) -> Iterator[CaseResult]:
    """Run cases and yield their results in order; a case that cannot be used is a result too.

    While a case compiles, the next ones are traced and proved.
    """
    begun: deque[Callable[[], CaseResult]] = deque()
    for file in files:
        begun.append(_start_file(file, progress, options or RunOptions()))
        if len(begun) > CASES_AHEAD:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _start_file(file: CaseFile, progress: ReportProgress, options: RunOptions) -> Callable[[], CaseResult]:
    """Start a case and return the function that finishes it. Its seconds leave out the time in between."""
    clock = time.perf_counter()
    progress(file.name)
    if (frozen := options.against) is None:
        started = _catch_problems(file, lambda: start_case(load_case(file), progress, options.prove_only))
    else:
        started = _catch_problems(file, lambda: compare_with_frozen(load_case(file, least_models=1), frozen, progress))
    spent = time.perf_counter() - clock

    def finish() -> CaseResult:
        clock, result = time.perf_counter(), started
        if isinstance(started, StartedCase):
            result = _catch_problems(file, partial(finish_case, started, progress))
        assert isinstance(result, CaseResult)
        if options.initial_values and isinstance(started, StartedCase):
            progress(f"{file.name}: comparing initial values")
            result = replace(result, initial_values=compare_initial_values(started.built_case))
        if options.faults and isinstance(started, StartedCase):
            progress(f"{file.name}: planting faults")
            result = replace(result, faults=_plant_faults(started.loaded))
        return replace(result, seconds=round(spent + time.perf_counter() - clock, 3))

    return finish


def _plant_faults(loaded: LoadedCase) -> FaultMatrix:
    try:
        return fault_matrix(run_selfcheck(loaded))
    except EquivError as error:
        return FaultMatrix((), problem=str(error))


def _catch_problems(file: CaseFile, function: Callable[[], Returned]) -> Returned | CaseResult:
    try:
        return function()
    except EquivError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the other cases still finish; the result says what broke
        problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
    return CaseResult(file.name, "", "", "", (), {}, (), problem=problem)


def make_run_result(cases: list[CaseResult], started: datetime, seconds: float) -> RunResult:
    """Combine the results of a run under one verdict."""
    verdict, headline = summarise_run(cases)
    return RunResult(
        verdict,
        headline,
        describe_environment(),
        tuple(cases),
        started.isoformat(),
        round(seconds, 3),
        rewrites=_rewrite_conditions(cases),
    )


def _rewrite_conditions(cases: list[CaseResult]) -> dict[str, str]:
    """Map the rewrites that proofs of these cases use to their conditions."""
    used = {name for case in cases for check in case.checks for item in check.findings for name in item.rewrites}
    constants = {
        FLOAT64_CONSTANTS: "float64 traces are compared: 1 - 0.99 and 0.01 are equal in real numbers, not in float32"
    }
    return {name: condition for name, condition in (CONDITIONS | constants).items() if name in used}


@dataclass(frozen=True)
class StartedCase:
    """A case whose ports are built, traced and proved, and compile in the background.

    Attributes:
        loaded: the case.
        built_case: its built ports.
        checks: those that are complete already.
        running: the comparison of the candidates that can be run; None where there are none, or with `prove_only`.
    """

    loaded: LoadedCase
    built_case: BuiltCase
    checks: tuple[CheckResult, ...]
    running: RunningComparison | None


def run_case(loaded: LoadedCase, progress: ReportProgress = lambda _: None, prove_only: bool = False) -> CaseResult:
    """Compare every candidate of a case with the reference. An error in one candidate does not affect the others.

    Args:
        loaded: the case.
        progress: called with a text for every stage.
        prove_only: prove what can be proved, and run nothing.

    Raises:
        CaseError: the case as a whole cannot be used: its batch, its methods, its reference.
    """
    return finish_case(start_case(loaded, progress, prove_only), progress)


def start_case(loaded: LoadedCase, progress: ReportProgress = lambda _: None, prove_only: bool = False) -> StartedCase:
    """Run the first half of `run_case`: all that needs no compiled program."""
    case, name = loaded.case, loaded.name
    reference, *candidates = case.models
    built_case = build_case(case)
    if problem := built_case.problems.get(reference):
        raise CaseError(f"{problem} The reference is {reference}: without it nothing can be compared.")
    ready, checks = split_by_structure(built_case, describe_port(built_case, reference), candidates)
    if ready and prove_only:
        checks += prove_candidates(built_case, ready)
    started = None
    if ready and not prove_only:
        started = start_candidates(built_case, ready, lambda stage: progress(f"{name}: {stage}"))
    return StartedCase(loaded, built_case, tuple(checks), started)


def finish_case(started: StartedCase, progress: ReportProgress = lambda _: None) -> CaseResult:
    """Run the second half of `run_case`: wait for the compiled ports, run and check them."""
    loaded, built_case, checks = started.loaded, started.built_case, list(started.checks)
    name = loaded.name
    reference = next(iter(loaded.case.models))
    trials: tuple[ProbeTrial, ...] = ()
    if started.running is not None:

        def stage(text: str) -> None:
            progress(f"{name}: {text}")

        found = compare_candidates(started.running, stage)
        found, trials = compare_on_longer_batch(built_case, list(started.running.traced), found, stage)
        checks += found
    tables = {name: built.table for name, built in built_case.built.items()}
    return make_case_result(loaded, reference, built_case, checks, trials, tables)
