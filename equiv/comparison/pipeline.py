"""Run cases: the stages that a run chooses, in order; what runs them, and the verdict of all."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from equiv.backends.environment import describe_environment, refuse_several_processes
from equiv.backends.patches import isolate_import
from equiv.backends.sharding import within_case
from equiv.certificates.write import Certificate
from equiv.comparison.as_users import check_user_calls, compiler_is_asked, start_user_calls
from equiv.comparison.case_result import make_case_result
from equiv.comparison.certify import certify_proofs
from equiv.comparison.default_rate import lower_default_rate
from equiv.comparison.edges.stage import try_edges
from equiv.comparison.frozen.against import add_frozen_trials, open_against
from equiv.comparison.frozen.bundle import FrozenReference
from equiv.comparison.initial_values import compare_initial_values
from equiv.comparison.invariances import check_invariances
from equiv.comparison.longer_batch import try_longer_batch
from equiv.comparison.meshes.stage import compare_sharding
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.one_sided import try_values
from equiv.comparison.prove_only import check_by_proof
from equiv.comparison.ranges import probe_ranges
from equiv.comparison.selfcheck.selfcheck import plant_faults
from equiv.comparison.stages import (
    break_proofs,
    check_candidates,
    check_structure,
    explain_differences,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
    trace_sizes,
    try_probes,
)
from equiv.comparison.state import CaseState, ReportStage, Stage, advance
from equiv.core.case import Case
from equiv.core.case_files import CASES_AHEAD, CaseFile, LoadedCase, load_case
from equiv.core.headline import summarise_run
from equiv.core.join_runs import broken_case
from equiv.core.results import CaseResult, RunResult
from equiv.core.selfcheck_results import fault_matrix
from equiv.errors import EquivError, error_summary
from equiv.programs.known_miscompilations import find_known_miscompilations
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.proof import FLOAT64_CASTS, FLOAT64_CONSTANTS, READ_CONSTANTS
from equiv.programs.range_limits import float_range

Returned = TypeVar("Returned")


def start_as_users(state: CaseState) -> CaseState:
    """Start to compile what users run. It needs no proof, so the compiler has work while the prover has."""
    traced = dict.fromkeys(state.traced, _not_compiled)
    return replace(start_user_calls(replace(state, compiling=traced)), compiling=state.compiling)


def _not_compiled() -> CompiledPort:
    raise AssertionError("what is compared is compiled after the proofs")


PROVE = (prove_ports, start_compiling, break_proofs, trace_sizes)
"""From the traced ports to their programs, which are compiled in the background."""

START = (trace_ports, start_as_users, *PROVE)
"""Up to the compiled programs, after the structure."""

COMPARE = (check_candidates, try_edges, probe_ranges, explain_differences, try_probes)
"""What needs the outputs of the reference."""


def run_reference_after(*start: Stage) -> tuple[Stage, ...]:
    """The first stages that need compiled programs; with a lower default rate these start again."""
    return run_reference, partial(lower_default_rate, stages=(*start, run_reference))


LONGER = (trace_ports, *PROVE, *run_reference_after(trace_ports, *PROVE), *COMPARE)
"""What is done on a longer batch: nothing is run as users do."""

WITH_ITSELF = (trace_ports, prove_ports, start_compiling, run_reference, check_candidates)
"""What is done with a port and itself, called with parts of the batch."""

FINISH = (
    *run_reference_after(*START),
    *COMPARE,
    partial(try_longer_batch, stages=LONGER),
    partial(check_invariances, stages=WITH_ITSELF),
    compare_sharding,
    check_user_calls,
)
"""What a run does once its programs are compiled."""

BY_PROOF = (trace_ports, prove_ports, check_by_proof)
"""What is proved of two ports."""

PROVE_ONLY = (*BY_PROOF, partial(check_invariances, stages=BY_PROOF), compare_sharding, trace_sizes)
"""Instead of `START` and `FINISH`: nothing is compiled or run."""


CONSTANTS_CONDITION = "float64 traces are compared: 1 - 0.99 and 0.01 are equal in real numbers, not in float32"
"""Under which `FLOAT64_CONSTANTS` holds."""

READ_CONDITION = (
    "a number that one port has rounded to bfloat16 or float16, as 2.828125, is the other port's number of more digits "
    "that rounds to it, as sqrt(8), or one over it"
)
"""Under which `READ_CONSTANTS` holds."""


@dataclass(frozen=True)
class RunOptions:
    """Options that hold for every case of a run.

    Attributes:
        prove_only: prove what can be proved, and run nothing.
        faults: plant faults in every candidate too, and record which are noticed.
        initial_values: compare the distributions of initial parameter values too.
        against: a frozen reference, used instead of the cases' own.
        checks: names of the checks that are made; empty: those that each case asks for.
        certified: called with case, candidate and the certificate of its proofs; None: none is written.
    """

    prove_only: bool = False
    faults: bool = False
    initial_values: bool = False
    against: FrozenReference | None = None
    certified: Callable[[str, str, Certificate], None] | None = None
    checks: tuple[str, ...] = ()


def run_cases(
    files: list[CaseFile], progress: ReportStage = lambda _: None, options: RunOptions | None = None
) -> Iterator[CaseResult]:
    """Run cases and yield their results in order; a case that cannot be used is a result too.

    While a case compiles, the next ones are traced and proved.
    """
    begun: deque[Callable[[], CaseResult]] = deque()
    for file in files:
        begun.append(start_file(file, progress, options or RunOptions()))
        if len(begun) > CASES_AHEAD:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def start_file(file: CaseFile, progress: ReportStage, options: RunOptions) -> Callable[[], CaseResult]:
    """Start a case and return the function that finishes it. Its seconds leave out the time in between.

    Args:
        file: the case; one that cannot be used is a result too.
        progress: called with a text for every stage.
        options: what else to do, or to leave out.
    """
    clock = time.perf_counter()
    progress(file.name)

    def load_and_start() -> tuple[LoadedCase, CaseState]:
        loaded = isolate_import(lambda: load_case(file, least_models=1 if options.against else 2))
        if options.checks:
            loaded = replace(loaded, case=replace(loaded.case, checks=options.checks))
        return loaded, start_case(loaded, progress, options)

    started = _catch_problems(file, load_and_start)
    spent = time.perf_counter() - clock

    def finish() -> CaseResult:
        clock, result = time.perf_counter(), started
        if not isinstance(started, CaseResult):
            result = _catch_problems(file, partial(finish_case, *started, options))
        assert isinstance(result, CaseResult)
        return replace(result, seconds=round(spent + time.perf_counter() - clock, 3))

    return finish


def _catch_problems(file: CaseFile, function: Callable[[], Returned]) -> Returned | CaseResult:
    try:
        return function()
    except EquivError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the other cases still finish; the result says what broke
        problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
    except (SystemExit, GeneratorExit) as error:
        problem = f"it raised {error_summary(error)}. A case must not end the program that runs it: take that out."
    return broken_case(file.name, problem)


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
        known_miscompilations=find_known_miscompilations() if compiler_is_asked() and any(map(_has_run, cases)) else (),
    )


def _has_run(case: CaseResult) -> bool:
    return case.scope is not None and case.scope.ran


def _rewrite_conditions(cases: list[CaseResult]) -> dict[str, str]:
    """Map the rewrites that proofs of these cases use to their conditions."""
    used = {name for case in cases for check in case.checks for item in check.findings for name in item.rewrites}
    dtypes = sorted({dtype for case in cases if case.scope is not None for dtype in case.scope.cast_dtypes})
    ranges = " and ".join(f"{one.dtype} ({one.smallest:.2g} to {one.largest:.4g})" for one in map(float_range, dtypes))
    lifted = {
        FLOAT64_CONSTANTS: CONSTANTS_CONDITION,
        READ_CONSTANTS: READ_CONDITION,
        FLOAT64_CASTS: f"casts between {ranges} are left out: no value on the way leaves the range of its dtype",
    }
    return {name: condition for name, condition in (CONDITIONS | lifted).items() if name in used}


def run_case(
    loaded: LoadedCase, progress: ReportStage = lambda _: None, options: RunOptions | None = None
) -> CaseResult:
    """Compare every candidate of a case with the reference. An error in one candidate does not affect the others.

    Args:
        loaded: the case.
        progress: called with a text for every stage.
        options: what else to do, or to leave out.

    Raises:
        CaseError: the case as a whole cannot be used: its batch, its methods, its reference.
    """
    options = options or RunOptions()
    return finish_case(loaded, start_case(loaded, progress, options), options)


def start_case(loaded: LoadedCase, progress: ReportStage, options: RunOptions) -> CaseState:
    """Run the stages that need no compiled program, and start to compile; arguments as of `run_case`."""

    def tell(stage: str) -> None:
        progress(f"{loaded.name}: {stage}")

    frozen = options.against
    refuse_several_processes()
    with within_case(loaded):
        state = check_structure(open_case(loaded.case, tell) if frozen is None else open_against(loaded, frozen, tell))
        return advance(state, (PROVE_ONLY if options.prove_only else START) if state.candidates else ())


def finish_case(loaded: LoadedCase, started: CaseState, options: RunOptions) -> CaseResult:
    """Run the stages that need compiled programs, and give the verdict; arguments as of `run_case`."""
    with within_case(loaded):
        return _finish(loaded, started, options)


def _compare_held(loaded: LoadedCase, state: CaseState, options: RunOptions, case: Case) -> CaseResult:
    """Compare two ports of a case with leaves of one of them held at values."""
    own = RunOptions(prove_only=options.prove_only)
    held = replace(loaded, case=case)
    started = check_structure(open_case(case, state.progress))
    return _finish(held, advance(started, (PROVE_ONLY if own.prove_only else START) if started.candidates else ()), own)


def _finish(loaded: LoadedCase, started: CaseState, options: RunOptions) -> CaseResult:
    if options.against is not None:
        alone = partial(check_invariances, stages=WITH_ITSELF)
        stages = (check_candidates, try_edges, probe_ranges, alone, compare_sharding, check_user_calls)
        checked = advance(started, stages)
        return make_case_result(loaded, add_frozen_trials(checked, options.against))
    state = advance(started, FINISH if started.compiling else ())
    result = try_values(state, make_case_result(loaded, state), partial(_compare_held, loaded, state, options))
    if options.certified is not None:
        state.progress("writing certificates")
        for candidate, certificate in certify_proofs(loaded.name, state):
            options.certified(loaded.name, candidate, certificate)
    if options.initial_values:
        state.progress("comparing initial values")
        result = replace(result, initial_values=compare_initial_values(state.built_case))
    if options.faults:
        state.progress("planting faults")
        result = replace(result, faults=fault_matrix(plant_faults(loaded.name, state)))
    return result
