"""Run each port as its user runs it, and find who is to blame where that is not what its programs mean."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from equiv.backends.build import call_user_code
from equiv.comparison.checks import CHECKS
from equiv.comparison.checks.compiled import compare_as_run
from equiv.comparison.numeric.own_rounding import GENEROUS, OPERATION_NUDGES
from equiv.comparison.numeric.rounding import output_depths
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs, describe_port
from equiv.comparison.observation import (
    FRESH_STATE,
    LARGE_INPUTS,
    Blame,
    Comparison,
    RoundingNoise,
    Sample,
    UserRun,
)
from equiv.comparison.stages import measure_operations
from equiv.comparison.state import CaseState, Reference
from equiv.core.case import Case
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult
from equiv.errors import EquivError
from equiv.programs import compile_thread as background
from equiv.programs.compiled import run_with_draws
from equiv.programs.compiler_passes import find_guilty_passes, list_suspects, without_passes
from equiv.programs.content import calls_foreign_code
from equiv.programs.probes import Probe, perturb_by_ulp
from equiv.programs.traced_port import TracedPort
from equiv.programs.user_calls import (
    CallResults,
    CompiledCalls,
    Runnable,
    UserCall,
    compile_user_call,
    derive_bits,
    lower_user_calls,
)

COMPILED = "compiled"
"""The check of what users run."""

CLEARLY = GENEROUS
"""How many times farther the program run operation by operation is from the wrong one of two runs."""


LEFT_OUT = "EQUIV_COMPILED"
"""Environment variable; with `0` nothing is asked of the compiler, for suites of many small cases."""


def compiler_is_asked() -> bool:
    """Whether ports are compiled as users do, and known miscompilations tried."""
    return os.environ.get(LEFT_OUT) != "0"


def start_user_calls(state: CaseState) -> CaseState:
    """Start to compile the programs of every port as its user does, in a background thread."""
    if not compiler_is_asked():
        return state
    calls: dict[str, Callable[[], CompiledCalls]] = {}
    for name in state.compiling:
        try:
            calls[name] = _start_port(state.traced[name], state.built_case.case.steps)
        except EquivError as error:
            calls[name] = partial(_raise, error)
    return replace(state, user_calls=calls)


def _raise(error: EquivError) -> CompiledCalls:
    raise error


def _start_port(traced: TracedPort, steps: int) -> Callable[[], CompiledCalls]:
    name, what = traced.port.name, "compiling as users do"
    lowered = call_user_code(name, "tracing as users call it", partial(lower_user_calls, traced, steps))
    waiting = background.run_in_background(lambda: tuple((call, compile_user_call(call)) for call in lowered))
    return partial(call_user_code, name, what, waiting)


def check_user_calls(state: CaseState) -> CaseState:
    """Run every port as its user does; every candidate gets a check of both ports that it compares."""
    reference = state.observed
    if reference is None or not state.user_calls:
        return state
    state.progress("running the ports as users do")
    runs: dict[str, UserRun] = {}
    for name in state.user_calls:
        compiled = state.compiled_reference if name == state.reference else None
        try:
            compiled = compiled or state.compiling[name]()
        except EquivError:
            continue  # its checks say why it cannot be run
        runs[name] = _run_port(state, reference, compiled)
    found: list[CheckResult] = []
    judged = {one.candidate for one in state.checks if one.check == COMPILED}
    for candidate in state.candidates:
        if candidate not in runs or candidate in judged:
            continue
        both = tuple(runs[name] for name in (state.reference, candidate) if name in runs)
        sides = (reference.observed, describe_port(state.built_case, candidate))
        result = CHECKS[COMPILED].run(Comparison(state.built_case.case, *sides, reference.noise, user_runs=both))
        found += [] if result is None else [result]
    return replace(state, checks=(*state.checks, *found))


def _run_port(state: CaseState, reference: Reference, compiled: CompiledPort) -> UserRun:
    name, case = compiled.traced.port.name, state.built_case.case
    probes = [
        probe for probe in state.probes.get(name, reference.probes) if probe.name not in (FRESH_STATE, LARGE_INPUTS)
    ]
    depth = output_depths(compiled.native.programs, compiled.native.steps)
    noise = RoundingNoise(reference.noise.native, {}, {**reference.noise.depth, **depth})
    empty = collect_outputs(compiled, {})
    try:
        calls = state.user_calls[name]()
        run_both = partial(_run_calls, compiled, calls)
        meaning, observed = call_user_code(name, "running as users do", partial(run_both, probes))
    except EquivError as error:
        return UserRun(empty, empty, noise, problem=str(error))
    run = UserRun(replace(empty, samples=meaning), replace(empty, samples=observed), noise)
    off = differing_programs(case, run)
    if not off:
        return run
    state.progress(f"measuring what {name} rounds")
    with suppress(EquivError):  # the budget stays that of its inputs
        run = replace(run, own_rounding=measure_operations(compiled, probes, off, compiled))
    state.progress(f"looking for who is to blame for {name}")
    blame = _find_blame(case, run, calls, probes)
    return replace(run, blame=blame)


Samples = dict[str, Sample]


def _run_calls(compiled: CompiledPort, calls: CompiledCalls, probes: Sequence[Probe]) -> tuple[Samples, Samples]:
    """Run what users run, and the executable that is compared, on the same keys and draws."""
    keyed = {one.program.name: one for one in compiled.traced.keyed}
    meaning: Samples = {}
    observed: Samples = {}
    for probe in probes:
        found: dict[OutputName, np.ndarray] = {}
        draws: dict[ProgramName, list[np.ndarray]] = {}
        for call, function in calls:
            results = call.run(function, probe)
            bits = derive_bits(keyed[call.name], results.given)
            draws[call.name] = [np.stack(one) for one in zip(*bits, strict=True)] if call.name == STEP else bits[0]
            found |= results.outputs
        means = run_with_draws(compiled.native, probe, draws)
        # What neither changes is no output.
        observed[probe.name] = Sample({name: array for name, array in found.items() if name in means}, None)
        meaning[probe.name] = Sample({name: means[name] for name in observed[probe.name].native}, None)
    return meaning, observed


def worst_ratio(case: Case, run: UserRun, program: ProgramName) -> float:
    """The largest error over its budget of the outputs of one program; infinite where no rounding explains it."""
    names = dict.fromkeys(name for sample in run.observed.samples.values() for name in sample.native)
    mine = (name for name in names if name.program == (TRAINING if program == STEP else program))
    found = [one for one in (compare_as_run(case, run, name) for name in mine) if one.grade == "refuted"]
    return max((math.inf if one.ratio is None else one.ratio for one in found), default=0.0)


def differing_programs(case: Case, run: UserRun) -> frozenset[ProgramName]:
    """The programs with an output that differs from what it means by more than rounding explains."""
    names = dict.fromkeys(name for sample in run.observed.samples.values() for name in sample.native)
    off = (output for output in names if compare_as_run(case, run, output).grade == "refuted")
    return frozenset(STEP if output.program == TRAINING else output.program for output in off)


def _find_blame(case: Case, run: UserRun, calls: CompiledCalls, probes: Sequence[Probe]) -> Mapping[ProgramName, Blame]:
    """Find who is to blame for each program that differs; passes are left out of the smallest one only."""
    off = differing_programs(case, run)
    found: dict[ProgramName, Blame] = {}
    known: tuple[str, ...] = ()
    for call, function in sorted(calls, key=lambda one: one[0].size):
        if calls_foreign_code(call.jaxpr):
            continue  # what a host function gives need not be the same the next time: no compiler is accused
        if call.name in off and _is_unstable(case, run, call, function, probes):
            found[call.name] = Blame("unstable")
        elif call.name in off:
            found[call.name] = blame = _blame_call(case, run, call, probes, known)
            known = known or blame.passes
    return found


def _is_unstable(case: Case, run: UserRun, call: UserCall, function: Runnable, probes: Sequence[Probe]) -> bool:
    """Whether one ulp in every input moves what the user runs about as far as it is off: a value beside a kink."""
    as_run, largest = replace(run, meaning=run.observed), 0.0
    for seed in range(1, OPERATION_NUDGES + 1):
        moved = {one.name: call.run(function, perturb_by_ulp(one, seed)) for one in probes}
        largest = max(largest, worst_ratio(case, _with_outputs(as_run, moved), call.name))
    return CLEARLY * largest >= worst_ratio(case, run, call.name)


def _blame_call(case: Case, run: UserRun, call: UserCall, probes: Sequence[Probe], known: tuple[str, ...]) -> Blame:
    """Find who is to blame for one program.

    Args:
        case: the case.
        run: the port as its user runs it, and what it means.
        call: the program, which differs.
        probes: that it was run on.
        known: passes that are to blame for a smaller program, tried first.
    """
    here = f"jax {jax.__version__} on {jax.devices()[0].device_kind}"

    def is_right_without(names: Sequence[str]) -> bool:
        try:
            function = compile_user_call(call, without_passes(names) if names else None)
            results = {one.name: call.run(function, one) for one in probes}
            return worst_ratio(case, _with_outputs(run, results), call.name) == 0
        except Exception:  # noqa: BLE001 - a program that does not compile without a pass says nothing about it
            return False

    if known and is_right_without(known):
        return Blame("compiler", known, here)
    suspects = list_suspects(lambda options: call.lowered.compile(compiler_options=options))
    # What is right when it is compiled once more says nothing about passes.
    if guilty := not is_right_without(()) and find_guilty_passes(suspects, is_right_without):
        return Blame("compiler", guilty, here)
    alone = {one.name: call.run_by_operation(one) for one in probes}
    from_meaning = worst_ratio(case, _with_outputs(run, alone), call.name)
    from_user = worst_ratio(case, _with_outputs(replace(run, meaning=run.observed), alone), call.name)
    if from_user > CLEARLY * from_meaning:
        return Blame("compiler", (), here)
    return Blame("equiv" if from_meaning > CLEARLY * from_user else "unstable", compiler=here)


def _with_outputs(run: UserRun, results: Mapping[str, CallResults]) -> UserRun:
    """The same port with the outputs of one program, run otherwise."""
    compared = {probe: sample.native for probe, sample in run.meaning.samples.items()}
    samples = {
        probe: Sample({name: array for name, array in found.outputs.items() if name in compared[probe]}, None)
        for probe, found in results.items()
    }
    return replace(run, observed=replace(run.observed, samples=samples))
