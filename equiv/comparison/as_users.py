"""Run each port as its user runs it, and find who is to blame where that is not what its programs mean."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax

from equiv.backends.build import call_user_code
from equiv.comparison.checks import CHECKS
from equiv.comparison.numeric.difference import worst_finding
from equiv.comparison.numeric.own_rounding import FEW_NUDGES, GENEROUS, OPERATION_NUDGES, Doubt
from equiv.comparison.numeric.own_runs import OwnRuns, Side
from equiv.comparison.numeric.rounding import output_depths
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs, describe_port
from equiv.comparison.numeric.user_outputs import (
    UserOutputs,
    UserRounding,
    compare_user_outputs,
    run_calls,
    run_changed,
)
from equiv.comparison.observation import (
    FRESH_STATE,
    LARGE_INPUTS,
    Blame,
    Comparison,
    PortOutputs,
    RoundingNoise,
    UserRun,
)
from equiv.comparison.state import CaseState, Reference
from equiv.core.case import Case
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError
from equiv.programs import compile_thread as background
from equiv.programs.compiled import count_all_equations
from equiv.programs.compiler_passes import find_guilty_passes, list_suspects, without_passes
from equiv.programs.content import calls_foreign_code
from equiv.programs.probes import Probe, perturb_by_ulp
from equiv.programs.traced_port import TracedPort
from equiv.programs.user_calls import CompiledCalls, Runnable, UserCall, compile_user_call, lower_user_calls

COMPILED = "compiled"
"""The check of what users run."""

CLEARLY = GENEROUS
"""How many times farther the program run operation by operation is from the wrong one of two runs."""

ASKED = "EQUIV_COMPILED"
"""Environment variable; with `0` nothing is asked of the compiler, for suites of many small cases; with `1` ports of
any size are compiled."""

MOST_EQUATIONS = 40_000
"""Number of equations of a port above which it is compiled as users do only where that is asked for.

Decoders of 24 layers have 24,000 and of 48 layers 47,000. Two of the latter compiled for more than nine minutes, and
were proved in three (jax 0.10.2, two cores).
"""


def compiler_is_asked() -> bool:
    """Whether ports are compiled as users do, and known miscompilations tried."""
    return os.environ.get(ASKED) != "0"


def start_user_calls(state: CaseState) -> CaseState:
    """Start to compile the programs of every port as its user does, in a background thread."""
    if not compiler_is_asked() or "compiled" not in state.wanted:
        return state
    sizes = {name: count_all_equations(state.traced[name].programs) for name in state.compiling}
    largest = max(sizes, key=sizes.__getitem__, default="")
    if largest and sizes[largest] > MOST_EQUATIONS and os.environ.get(ASKED) != "1":
        why = f"{largest} has {sizes[largest]} equations, which compile for minutes; {ASKED}=1 asks for it"
        return replace(state, not_as_users=why)
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


@dataclass(frozen=True)
class UserPort:
    """A port that is run as its user does.

    Attributes:
        case: the case.
        compiled: the port as equiv compares it.
        calls: its programs as users call them, compiled.
        probes: what they are run on.
        described: the port, without outputs.
        rounding: what it may round.
    """

    case: Case
    compiled: CompiledPort
    calls: CompiledCalls
    probes: tuple[Probe, ...]
    described: PortOutputs
    rounding: UserRounding

    @property
    def comparison(self) -> Comparison:
        """It as both sides, without outputs, and its rounding."""
        own = (self.rounding.own, None)
        return Comparison(self.case, self.described, self.described, self.rounding.noise, own_rounding=own)

    def compare(self, runs: Iterable[UserOutputs]) -> dict[OutputName, Finding]:
        """Compare what it computes with what it means."""
        return compare_user_outputs(self.comparison, runs)

    def run(self) -> Iterator[UserOutputs]:
        """Run it on one probe after the other."""
        return (run_calls(self.comparison, self.compiled, self.calls, probe) for probe in self.probes)


def _run_port(state: CaseState, reference: Reference, compiled: CompiledPort) -> UserRun:
    name, case = compiled.traced.port.name, state.built_case.case
    probes = tuple(
        probe for probe in state.probes.get(name, reference.probes) if probe.name not in (FRESH_STATE, LARGE_INPUTS)
    )
    depth = output_depths(compiled.native.programs, compiled.native.steps)
    noise = RoundingNoise(reference.noise.native, {}, {**reference.noise.depth, **depth})
    try:
        calls = state.user_calls[name]()
        port = UserPort(case, compiled, calls, probes, collect_outputs(compiled, {}), UserRounding(noise))
        found = port.compare(port.run())
    except EquivError as error:
        return UserRun(name, problem=str(error))
    blame: Mapping[ProgramName, Blame] = {}
    if differing_programs(found):
        found, blame = _find_blame(state, port, found)
    return UserRun(name, worst_of_programs(found), blame)


def worst_of_programs(found: Mapping[OutputName, Finding]) -> dict[ProgramName, Finding]:
    """Program to the finding of its worst output."""
    programs = dict.fromkeys(output.program for output in found)
    mine = {program: {name: one for name, one in found.items() if name.program == program} for program in programs}
    return {program: worst_finding(next(iter(own)), list(own.values())) for program, own in mine.items()}


def _list_ratios(found: Mapping[OutputName, Finding], program: ProgramName) -> dict[OutputName, float]:
    """The error over its budget of each output of one program; infinite where no rounding explains it."""
    own = {name: one for name, one in found.items() if _own_program(name) == program}
    return {
        name: (math.inf if one.grade == "refuted" else 0.0) if one.ratio is None else one.ratio
        for name, one in own.items()
    }


def differing_programs(found: Mapping[OutputName, Finding]) -> frozenset[ProgramName]:
    """The programs with an output that differs from what it means by more than rounding explains."""
    return frozenset(_own_program(name) for name, one in found.items() if one.grade == "refuted")


def _own_program(output: OutputName) -> ProgramName:
    return STEP if output.program == TRAINING else output.program


def _find_blame(
    state: CaseState, port: UserPort, found: Mapping[OutputName, Finding]
) -> tuple[dict[OutputName, Finding], dict[ProgramName, Blame]]:
    """Find who is to blame for each program that differs; passes are left out of the smallest one only.

    What a port's operations round costs a hundred runs: whether a value lies beside a kink is asked before.

    Returns:
        What was found once more, with what the port's operations round, and program to who is to blame.
    """
    name = port.described.table.port
    state.progress(f"looking for who is to blame for {name}")
    blamed = {program: Blame("unstable") for program in _find_unstable(port, found)}
    if not (off := differing_programs(found) - blamed.keys()):
        return dict(found), blamed
    state.progress(f"measuring what {name} rounds")
    port, runs, again = measure_user_rounding(port, off)
    state.progress(f"looking for who is to blame for {name}")
    off = differing_programs(again) - blamed.keys()
    known: tuple[str, ...] = ()
    for call, function in sorted(port.calls, key=lambda one: one[0].size):
        if calls_foreign_code(call.jaxpr) or call.name not in off:
            continue  # what a host function gives need not be the same the next time: no compiler is accused
        judged = _JudgedCall(port, call, runs, _list_ratios(again, call.name))
        is_unstable = judged.is_unstable(function, OPERATION_NUDGES)
        blame = Blame("unstable") if is_unstable else judged.find_blame(known)
        blamed[call.name], known = blame, known or blame.passes
    return again, blamed


def _find_unstable(port: UserPort, found: Mapping[OutputName, Finding]) -> Iterator[ProgramName]:
    """The programs of which all that differs lies beside a kink, as few runs show on the probes where it does."""
    probes = {one.probe for one in found.values() if one.grade == "refuted"}
    port = replace(port, probes=tuple(probe for probe in port.probes if probe.name in probes))
    runs, off = tuple(port.run()), differing_programs(found)
    for call, function in port.calls:
        judged = _JudgedCall(port, call, runs, _list_ratios(found, call.name))
        asked = call.name in off and not calls_foreign_code(call.jaxpr)
        if asked and judged.is_unstable(function, FEW_NUDGES):
            yield call.name


def measure_user_rounding(
    port: UserPort, off: frozenset[ProgramName]
) -> tuple[UserPort, tuple[UserOutputs, ...], dict[OutputName, Finding]]:
    """Measure what the operations of some programs round, on the probes on which an output is off.

    Returns:
        The port with what it rounds, its runs, and what is found with that.
    """
    runs = tuple(port.run())
    found, native = port.compare(runs), replace(port.compiled, float64=None)  # what users run is not in float64
    own = OwnRuns((Side(native, port.probes, {}), Side(native, (), {})))  # it is compared with itself
    while own.measure(_find_doubts(found, off)):
        port = replace(port, rounding=replace(port.rounding, own=own.known[0]))
        found = port.compare(runs)
    return port, runs, found


def _find_doubts(
    found: Mapping[OutputName, Finding], off: frozenset[ProgramName]
) -> dict[Doubt, frozenset[ProgramName]]:
    """The probes on which an output is off, and the programs that are."""
    return {Doubt(one.probe, in_float64=False): off for one in found.values() if one.grade == "refuted"}


@dataclass(frozen=True)
class _JudgedCall:
    """A program that differs from what it means.

    Attributes:
        port: whose it is.
        call: the program.
        runs: the port on each of its probes.
        ratios: of each of its outputs, its error over its budget.
    """

    port: UserPort
    call: UserCall
    runs: tuple[UserOutputs, ...]
    ratios: Mapping[OutputName, float]

    def distance(self, function: Runnable, from_user: bool = False) -> float:
        """How far the program is, computed otherwise, from what it means: its worst output that is off."""
        ratios = self._distances(function, from_user)
        return max((ratio for ratio in ratios.values() if ratio > 1), default=0.0)

    def _distances(self, function: Runnable, from_user: bool, seed: int | None = None) -> dict[OutputName, float]:
        """The same of each output.

        Args:
            function: what computes it.
            from_user: measure the distance from what the user runs instead.
            seed: of the directions in which every input is moved by an ulp; None: it is not moved.
        """
        calls = ((self.call, function),)
        changed = (
            run_changed(
                self.port.comparison,
                self.port.compiled,
                calls,
                probe if seed is None else perturb_by_ulp(probe, seed),
                run,
                run.observed if from_user else run.meaning,
            )
            for probe, run in zip(self.port.probes, self.runs, strict=True)
        )
        return _list_ratios(self.port.compare(changed), self.call.name)

    def is_unstable(self, function: Runnable, runs: int) -> bool:
        """Whether one ulp in every input moves each output about as far as it is off: a value beside a kink.

        Args:
            function: what the user runs.
            runs: most runs with every input moved; none is made once all outputs have moved so far.
        """
        left = {output: ratio for output, ratio in self.ratios.items() if ratio > 1}
        for seed in range(1, runs + 1):
            moved = self._distances(function, from_user=True, seed=seed)
            left = {output: ratio for output, ratio in left.items() if CLEARLY * moved.get(output, 0.0) < ratio}
            if not left:
                return True
        return False

    def find_blame(self, known: tuple[str, ...]) -> Blame:
        """Find who is to blame; `known` are passes that are to blame for a smaller program, tried first."""
        here = f"jax {jax.__version__} on {jax.devices()[0].device_kind}"
        if known and self._is_right_without(known):
            return Blame("compiler", known, here)
        suspects = list_suspects(lambda options: self.call.lowered.compile(compiler_options=options))
        # What is right when it is compiled once more says nothing about passes.
        if guilty := not self._is_right_without(()) and find_guilty_passes(suspects, self._is_right_without):
            return Blame("compiler", guilty, here)
        from_meaning = self.distance(self.call.evaluate_by_operation)
        from_user = self.distance(self.call.evaluate_by_operation, from_user=True)
        if from_user > CLEARLY * from_meaning:
            return Blame("compiler", (), here)
        return Blame("equiv" if from_meaning > CLEARLY * from_user else "unstable", compiler=here)

    def _is_right_without(self, names: Sequence[str]) -> bool:
        try:
            function = compile_user_call(self.call, without_passes(names) if names else None)
            return self.distance(function) == 0
        except Exception:  # noqa: BLE001 - a program that does not compile without a pass says nothing about it
            return False
