"""Self-check by mutation testing: plant faults in every candidate, one at a time, and compare as a run does.

Faults are planted in its programs, equation by equation, and in its builder, hyperparameter by hyperparameter.
"""

import time
from collections.abc import Iterator, Sequence
from functools import cache, partial

from equiv.backends.sharding import within_case
from equiv.comparison.observation import RoundingNoise
from equiv.comparison.selfcheck.detection import Detector, detect, explain_undetected, open_detector
from equiv.comparison.selfcheck.eager_port import measure_eager_noise, open_eager_port
from equiv.comparison.selfcheck.hyperparameter_faults import plant_in_builder
from equiv.comparison.selfcheck.wrong_values import HYPERPARAMETER_RULES, HyperparameterRule
from equiv.comparison.stages import open_case, trace_ports
from equiv.comparison.state import CaseState
from equiv.core.case_files import LoadedCase
from equiv.core.selfcheck_results import MutantResult, SelfcheckResult
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase
from equiv.programs.mutation.equations import iterate_equations
from equiv.programs.mutation.mutate import FAULTS, Fault, Mutation, generate_mutants
from equiv.programs.program import Program
from equiv.programs.prover.numbered_port import all_programs

MAX_SITES = 3
"""Most sites of one kind of fault in one program, tried until one is noticed; all tried are reported."""

SITE_SEED = 0
"""Seed for the choice of sites."""


def run_selfcheck(
    loaded: LoadedCase,
    faults: Sequence[Fault] = FAULTS,
    fresh: bool = False,
    rules: Sequence[HyperparameterRule] = HYPERPARAMETER_RULES,
) -> SelfcheckResult:
    """Plant faults in every candidate of a case; arguments as of `plant_faults`.

    Raises:
        EquivError: the case or its reference cannot be used.
    """
    with within_case(loaded):
        return plant_faults(loaded.name, trace_ports(open_case(loaded.case)), faults, fresh, rules)


def plant_faults(
    name: str,
    state: CaseState,
    faults: Sequence[Fault] = FAULTS,
    fresh: bool = False,
    rules: Sequence[HyperparameterRule] = HYPERPARAMETER_RULES,
) -> SelfcheckResult:
    """Plant faults in every traced candidate.

    Args:
        name: of the case.
        state: the case, its ports traced.
        faults: kinds of fault in a program.
        fresh: use default-initialised parameters and an all-ones batch, as a baseline.
        rules: kinds of fault in a builder.
    """
    started = time.perf_counter()
    results: list[MutantResult] = []
    problems = list(dict.fromkeys(check.summary for check in state.checks if check.grade == "error"))
    built_case, traced = state.built_case, state.traced
    if state.reference not in traced:  # no candidate can be compared with it
        return SelfcheckResult(name, fresh, problem="; ".join(problems))

    @cache
    def noise(in_float64: bool) -> RoundingNoise:
        return measure_eager_noise(open_eager_port(built_case, traced[state.reference], fresh, in_float64))

    def detector(candidate: str, in_float64: bool) -> Detector:
        port = open_eager_port(built_case, traced[candidate], fresh, in_float64)
        return open_detector(port, built_case, noise(in_float64))

    try:
        noise(True)
    except EquivError as error:
        return SelfcheckResult(name, fresh, problem=str(error))
    for candidate in state.candidates:
        try:
            results += _plant_all(built_case, partial(detector, candidate), faults, rules)
        except EquivError as error:
            problems.append(str(error))
    kinds = tuple(dict.fromkeys(kind.kind for kind in (*faults, *rules)))
    seconds = round(time.perf_counter() - started, 3)
    return SelfcheckResult(name, fresh, tuple(results), kinds, "; ".join(problems), seconds)


def _plant_all(
    built_case: BuiltCase, detector: "partial[Detector]", faults: Sequence[Fault], rules: Sequence[HyperparameterRule]
) -> list[MutantResult]:
    in_float64 = detector(True)
    native = cache(partial(detector, False))
    return [*_plant_in_programs(in_float64, faults), *plant_in_builder(built_case, in_float64, native, rules)]


def _plant_in_programs(detector: Detector, faults: Sequence[Fault]) -> Iterator[MutantResult]:
    for program in all_programs(detector.port.programs):
        if program.name.kind == "eval gradient":
            continue  # its operations are those of the call in eval mode, and of the gradient in train mode
        places = list(iterate_equations(program))
        for fault in faults:
            for tried, (mutation, mutant) in enumerate(generate_mutants(program, fault, SITE_SEED, places)):
                result = _judge_mutant(detector, mutation, mutant)
                yield result
                if result.outcome == "killed" or tried + 1 == MAX_SITES:
                    break


def _judge_mutant(detector: Detector, mutation: Mutation, mutant: Program) -> MutantResult:
    """Judge one fault: noticed by some output, else proved equivalent, else the reason."""
    backend = detector.port.traced.port.name
    planted = partial(MutantResult, backend, mutation.kind, str(mutation.program), mutation.site)
    where, unnoticed = detect(detector, mutant)
    if where:
        return planted("killed", **where)
    outcome, reason = explain_undetected(detector, mutant, unnoticed)
    return planted(outcome, reason=reason)
