"""The stages of a comparison: build, structure, trace, prove, compile, run, check, explain, sensitivity.

Who compares chooses from them; see `equiv.comparison.pipeline`. Nothing else builds, traces, proves or compiles ports
to compare them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from equiv.comparison.checks import CHECKS
from equiv.comparison.explain.divergence import add_divergences
from equiv.comparison.explain.locate import add_first_differences
from equiv.comparison.explain.updates import add_optimizer_difference
from equiv.comparison.numeric.constant_readings import ReadAgain, doubted_constants, read_constants
from equiv.comparison.numeric.difference_map import add_spreads, worst_findings
from equiv.comparison.numeric.fold import FoldedRun, fetch_outputs, fold_comparison, fold_own_rounding
from equiv.comparison.numeric.own_rounding import differs_in_float64, doubted_programs, find_doubts
from equiv.comparison.numeric.own_runs import OwnRuns, Side
from equiv.comparison.numeric.run_port import (
    CompiledPort,
    CompileOptions,
    collect_outputs,
    compile_port,
    describe_port,
    run_on_probe,
)
from equiv.comparison.observation import (
    FRESH_STATE,
    Comparison,
    PortOutputs,
    RoundingNoise,
    find_known_differences,
)
from equiv.comparison.proofs import keep_names, needed_in_float64, prove_all, prover_side, settled_gradients
from equiv.comparison.readings import add_readings, name_frozen_limit, name_tables
from equiv.comparison.reference_probes import measure_rounding, merge_samples, start_reference
from equiv.comparison.sensitivity.probe_sensitivity import measure_sensitivity
from equiv.comparison.sensitivity.proof_mutation import mutate_proofs
from equiv.comparison.state import (
    LATER_CHECKS,
    STRUCTURE,
    CaseState,
    ReportStage,
    failed_checks,
)
from equiv.comparison.training import find_idle_slots, is_training_shared
from equiv.core.case import Case
from equiv.core.output_name import STEP, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.scope import OtherSizes
from equiv.errors import CaseError, EquivError, NotRun
from equiv.programs.built_case import build_case, share_train_step
from equiv.programs.exercise import Observed
from equiv.programs.other_sizes import trace_other_sizes
from equiv.programs.traced_port import TracedPort, trace_other_step, trace_port


def open_case(case: Case, progress: ReportStage = lambda _: None, own_steps: bool = False) -> CaseState:
    """Build the ports of a case, whose first model is the reference.

    Args:
        case: the case.
        progress: called with a text for every stage.
        own_steps: keep a train step that only one port has, though it cannot be compared.

    Raises:
        CaseError: the case as a whole cannot be used: its batch, its methods, its reference.
    """
    reference, *candidates = case.models
    built_case = build_case(case) if own_steps else share_train_step(build_case(case))
    if problem := built_case.problems.get(reference):
        why = f"The reference is {reference}: without it nothing can be compared."
        raise CaseError(f"{problem.problem} {why}", fix=problem.fix, port=reference, leaf=problem.leaf)
    return CaseState(built_case, reference, tuple(candidates), progress)


def check_structure(state: CaseState) -> CaseState:
    """Compare the leaves of every candidate with those of the reference.

    A candidate that could not be built, or whose leaves differ, gets its later checks as `blocked` and is not run.
    """
    reference = state.observed.observed if state.observed else describe_port(state.built_case, state.reference)
    ready: list[str] = []
    checks = list(state.checks)
    for candidate in state.candidates:
        if problem := state.built_case.problems.get(candidate):
            checks += _structure_failure(candidate, problem)
            continue
        described = describe_port(state.built_case, candidate)
        comparison = Comparison(state.built_case.case, reference, described, RoundingNoise({}, {}, {}))
        result = CHECKS[STRUCTURE].run(comparison)
        assert result is not None, "every model has a structure"
        checks.append(result)
        if broken := [item for item in result.findings if item.grade == "refuted" and item.structure]:
            note = f"{broken[0].place}: {broken[0].note}"
            checks += [CheckResult(later, candidate, "blocked", note) for later in LATER_CHECKS]
        else:
            ready.append(candidate)
    return replace(state, candidates=tuple(ready), checks=tuple(checks))


def _structure_failure(candidate: str, problem: EquivError) -> list[CheckResult]:
    grade = "not run" if isinstance(problem, NotRun) else "error"
    blocked = [CheckResult(later, candidate, "blocked", f"{STRUCTURE}: {problem}") for later in LATER_CHECKS]
    finding = Finding(candidate, grade, note=str(problem))
    return [CheckResult(STRUCTURE, candidate, grade, str(problem), (finding,)), *blocked]


def describe_side(state: CaseState, name: str) -> PortOutputs:
    """A port without outputs; a frozen reference is described already."""
    if name in state.built_case.built:
        return describe_port(state.built_case, name)
    assert state.observed is not None, "a frozen reference has its outputs"
    return state.observed.observed


def trace_ports(state: CaseState) -> CaseState:
    """Trace every port; a candidate that cannot be traced gets its later checks as errors.

    Raises:
        EquivError: the reference cannot be traced.
    """
    state.progress("tracing")
    traced = dict(state.traced)
    if state.prover_side is None and state.reference not in traced:
        traced[state.reference] = _trace_port(state, state.reference)
    checks = state.checks
    for candidate in state.candidates:
        try:
            if problem := state.built_case.problems.get(candidate):
                raise problem
            traced[candidate] = _trace_port(state, candidate)
        except EquivError as error:
            checks += failed_checks(candidate, error)
    candidates = tuple(name for name in state.candidates if name in traced)
    return replace(state, traced=traced, candidates=candidates, checks=checks)


def _trace_port(state: CaseState, name: str) -> TracedPort:
    before = None if state.before is None else state.before.traced.get(name)
    return trace_port(state.built_case, name) if before is None else trace_other_step(state.built_case, before)


def prove_ports(state: CaseState) -> CaseState:
    """Prove outputs of every candidate equal to the reference's; what has no proof is run in float64 too."""
    state.progress("proving")
    left = state.prover_side or prover_side(state.traced[state.reference])
    sides = {name: prover_side(state.traced[name]) for name in state.candidates}
    if (before := state.before) is not None and before.prover_side is not None:
        left = keep_names(left, before.prover_side)
        sides = {name: keep_names(side, before.candidate_sides[name]) for name, side in sides.items()}
    proofs = prove_all(left, sides)
    needed = needed_in_float64(left.numbered.table, left.numbered.programs, proofs)
    every = {state.reference: frozenset[ProgramName]().union(*needed.values())}
    return replace(state, prover_side=left, candidate_sides=sides, proofs=proofs, in_float64=every | needed)


def start_compiling(state: CaseState) -> CaseState:
    """Start to compile every port in a background thread; a reference whose outputs are known is left out.

    Raises:
        EquivError: the reference cannot be lowered.
    """
    compiling = dict(state.compiling)
    checks = state.checks
    left = None if state.prover_side is None else state.prover_side.numbered.programs
    candidates = {name: state.traced[name].programs for name in state.candidates}
    settled = settled_gradients(state.reference, left, candidates, state.proofs)
    earlier = {} if state.before is None else _same_calls(state, state.before)
    for name in (*(() if state.observed else (state.reference,)), *state.candidates):
        programs = state.in_float64.get(name)
        quick = programs is not None and not programs
        try:
            # The rounding and the probes are measured by more runs of the reference alone.
            once = name != state.reference
            options = CompileOptions(programs, quick, settled[name], once, earlier.get(name))
            compiling[name] = compile_port(state.built_case, state.traced[name], options)
        except EquivError as error:
            if name == state.reference:
                raise
            checks += failed_checks(name, error)
    calls = {name: waiting for name, waiting in state.user_calls.items() if name in compiling}
    return replace(state, compiling=compiling, checks=checks, user_calls=calls)


def _same_calls(state: CaseState, before: CaseState) -> dict[str, Callable[[], CompiledPort]]:
    """What waits for each port with the step it had, where the same of it was compiled in float64."""
    same = (name for name in before.compiling if before.in_float64.get(name) == state.in_float64.get(name))
    return {name: before.compiling[name] for name in same}


def trace_sizes(state: CaseState) -> CaseState:
    """Trace every port with other batch sizes and sequence lengths, while its own are compiled."""
    if state.before is not None:
        return replace(state, other_sizes=state.before.other_sizes)  # only calls are traced
    state.progress("tracing with other sizes")
    found: list[OtherSizes] = []
    for traced in (state.traced[name] for name in (state.reference, *state.candidates) if name in state.traced):
        calls = [part for part in traced.programs.parts if part.name.is_forward]
        found += trace_other_sizes(traced.tracer, calls)
    return replace(state, other_sizes=tuple(found))


def break_proofs(state: CaseState) -> CaseState:
    """Change one equation of every proved program, which must break its proof."""
    sides = {name: state.candidate_sides[name] for name in state.candidates}
    return replace(state, trials=(*state.trials, *mutate_proofs(sides, state.proofs)))


def run_reference(state: CaseState) -> CaseState:
    """Wait for the reference, run it on its probes, and measure its rounding.

    Raises:
        EquivError: it cannot be compiled or run.
    """
    return measure_rounding(start_reference(state))


def check_candidates(state: CaseState) -> CaseState:
    """Wait for every candidate, run it, and make every check after structure."""
    checks, exercised, readings = state.checks, dict(state.exercised), dict[str, ReadAgain]()
    for candidate in state.candidates:
        if candidate not in state.compiling:
            continue  # it could not be lowered, and its checks say so
        state.progress(f"compiling {candidate}")
        try:
            found, exercised[candidate], read = _check_candidate(state, state.compiling[candidate]())
            checks += tuple(found)
            readings |= {} if read is None else {candidate: read}
        except EquivError as error:
            checks += failed_checks(candidate, error)
    return replace(state, checks=checks, exercised=exercised, readings=readings)


def _check_candidate(state: CaseState, candidate: CompiledPort) -> tuple[list[CheckResult], Observed, ReadAgain | None]:
    """Run a candidate: its checks, what it exercised, and how constants are read otherwise for these."""
    reference, case, name = state.observed, state.built_case.case, candidate.traced.port.name
    assert reference is not None, "run_reference comes before"
    given = reference.observed.samples
    differences = find_known_differences(case, reference.observed.table, candidate.table)
    converted = {leaf for leaf in differences if leaf in candidate.table.names()}
    ours, theirs = reference.observed, collect_outputs(candidate, {})
    if not is_training_shared((ours.train_step, theirs.train_step)):
        ours, theirs = _without_step_draws(ours), _without_step_draws(theirs)
    proofs, idle = state.proofs.get(name, {}), find_idle_slots(state, name)
    comparison = Comparison(case, ours, theirs, reference.noise, proofs, idle)
    probes = state.probes.get(name, reference.probes)
    folds = {probe.name: FoldedRun(comparison, probe.name) for probe in probes}
    samples = {
        probe.name: run_on_probe(
            candidate,
            probe,
            given[probe.name] if probe.name == FRESH_STATE else None,
            converted,
            folds[probe.name].hold,
        )
        for probe in probes
    }
    comparison = fold_comparison(replace(comparison, candidate=replace(theirs, samples=samples)), folds)
    comparison, results, read = _check_with_readings(state, candidate, comparison)
    results = name_tables(results, (state.compiled_reference, candidate))
    if state.compiled_reference is None and (
        doubted_programs(comparison, results) or doubted_constants(comparison, results)
    ):
        results = name_frozen_limit(results)
    comparison = _fetch_shown(comparison, results)
    return [add_spreads(comparison, result) for result in results], merge_samples(samples), read


def _fetch_shown(comparison: Comparison, results: Sequence[CheckResult]) -> Comparison:
    """Fetch the arrays of large outputs whose differences are shown, in one run for each probe; not of proved ones."""
    wanted: dict[str, set[OutputName]] = {}
    for finding in (one for result in results for one in worst_findings(result)):
        if finding.output is not None and not finding.grade.startswith("proved"):
            wanted.setdefault(finding.probe, set()).add(finding.output)
    sides = (comparison.reference, comparison.candidate)
    reference, candidate = (fetch_outputs(side, wanted) for side in sides)
    return replace(comparison, reference=reference, candidate=candidate)


def _check_with_readings(
    state: CaseState, candidate: CompiledPort, comparison: Comparison
) -> tuple[Comparison, list[CheckResult], ReadAgain | None]:
    """Make every check, with what ports round and their constants read otherwise, where that explains differences."""
    results = _run_checks(state, comparison)
    if differs_in_float64(comparison, results):
        # No rounding explains that, and what a port's operations round costs a hundred runs: constants are read first.
        changed, again, read = _check_with_constants_read(state, candidate, comparison, results)
        if read is not None and all(one.grade not in ("refuted", "error") for one in again):
            return changed, again, read
    comparison, results = _check_with_own_rounding(state, candidate, comparison, results)
    return _check_with_constants_read(state, candidate, comparison, results)


def _check_with_own_rounding(
    state: CaseState, candidate: CompiledPort, comparison: Comparison, results: list[CheckResult] | None = None
) -> tuple[Comparison, list[CheckResult]]:
    """Make every check, and once more with what the ports' operations round, where that could explain a difference."""
    results = _run_checks(state, comparison) if results is None else results
    names = doubted_programs(comparison, results)
    if names:
        state.progress(f"measuring what {' and '.join(comparison.names)} round")
    runs = _own_runs(state, candidate, comparison)
    while runs.measure(find_doubts(results, names)):
        comparison = fold_own_rounding(replace(comparison, own_rounding=runs.known))
        results = _run_checks(state, comparison)
    return comparison, results


def _own_runs(state: CaseState, candidate: CompiledPort, comparison: Comparison) -> OwnRuns:
    assert state.observed is not None, "run_reference comes before"
    shared = state.observed.probes
    ours, theirs = (
        Side(compiled, state.probes.get(side.table.port, shared), side.samples)
        for compiled, side in (
            (state.compiled_reference, comparison.reference), (candidate, comparison.candidate),
        )
    )  # fmt: skip
    return OwnRuns((ours, theirs), comparison.own_rounding)


def _check_with_constants_read(
    state: CaseState, candidate: CompiledPort, comparison: Comparison, results: list[CheckResult]
) -> tuple[Comparison, list[CheckResult], ReadAgain | None]:
    """Make every check once more with constants read otherwise, where these could explain all that is refuted."""
    names = doubted_constants(comparison, results)
    if not names:
        return comparison, results, None
    state.progress(f"reading the constants of {' and '.join(comparison.names)}")
    assert state.observed is not None, "run_reference comes before"
    sides = (comparison.reference, comparison.candidate)
    probes = [state.probes.get(side.table.port, state.observed.probes) for side in sides]
    ports = (state.compiled_reference, candidate)
    try:
        read = read_constants(comparison, results, names, ports, (probes[0], probes[1]))
        if read is None:
            return comparison, results, None
        changed = fold_comparison(replace(read.comparison, folded={}))
        changed, again = _check_with_own_rounding(state, candidate, changed)
    except EquivError:
        return comparison, results, None  # such as an operation that cannot be evaluated alone
    return changed, add_readings(results, again, read.note), read.again


def _run_checks(state: CaseState, comparison: Comparison) -> list[CheckResult]:
    results = (CHECKS[check].run(comparison) for check in state.wanted)
    return [result for result in results if result is not None]


def _without_step_draws(observed: PortOutputs) -> PortOutputs:
    """Leave out the draws of a train step that is not compared."""
    draws = {name: draws for name, draws in observed.draws.items() if name != STEP}
    return replace(observed, draws=draws, reused=tuple(one for one in observed.reused if one.program != STEP))


def explain_differences(state: CaseState) -> CaseState:
    """Add the first different equations and values of both ports to what is not proved."""
    checks = [check for check in state.checks if check.candidate not in state.candidates or check.check == STRUCTURE]
    assert state.observed is not None, "run_reference comes before"
    left, probes, steps = state.traced[state.reference], state.observed.probes, state.built_case.case.steps
    for candidate in state.candidates:
        found = [check for check in state.checks if check.candidate == candidate and check.check != STRUCTURE]
        right = state.traced[candidate]
        try:
            located = add_first_differences(found, left, right, state.proofs.get(candidate, {}))
            explained = add_optimizer_difference(located, left, right, probes[0], steps)
            checks += add_divergences(explained, left, right, probes, steps)
        except EquivError as error:
            checks += failed_checks(candidate, error)
    return replace(state, checks=tuple(checks))


def try_probes(state: CaseState) -> CaseState:
    """Measure whether the probes would show a change of each leaf, and a swap of two."""
    state.progress("measuring the sensitivity of the probes")
    reference, compiled = state.observed, state.compiled_reference
    assert reference is not None, "run_reference comes before"
    assert compiled is not None, "a frozen reference has its trials already"
    found = measure_sensitivity(compiled, reference, state.built_case.case.budget_factor)
    zero = frozenset(leaf for leaf, slopes in found.slopes.items() if slopes.is_zero_in_theory)
    return replace(state, trials=(*found.trials, *state.trials), zero_gradients=zero)
