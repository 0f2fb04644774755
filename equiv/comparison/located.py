"""Where a case differs, all of it: every divergence of every refuted program; and the smallest reproduction of one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from equiv.backends.environment import refuse_several_processes
from equiv.backends.sharding import within_case
from equiv.comparison.default_rate import lower_default_rate
from equiv.comparison.explain.divergence import explain_programs, group_refuted, make_runs
from equiv.comparison.explain.explanation import Explanation
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.locate import add_first_differences
from equiv.comparison.explain.reproduction.reproduce import (
    MOST_SECONDS,
    Reproduction,
    narrow_runs,
    reproduce_difference,
)
from equiv.comparison.explain.updates import add_optimizer_difference
from equiv.comparison.reference_probes import measure_rounding, start_reference
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    prove_ports,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import STRUCTURE, CaseState, ReportStage, advance
from equiv.compat import enable_x64
from equiv.core.case_files import LoadedCase
from equiv.core.grades import Verdict
from equiv.core.headline import severity
from equiv.core.located import LocatedCandidate, LocatedCase, LocatedProgram
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import verdict_of
from equiv.errors import EquivError

COMPILE = (trace_ports, prove_ports, start_compiling, start_reference)

LOCATE = (*COMPILE, partial(lower_default_rate, stages=COMPILE), measure_rounding, check_candidates)
"""From the structure to what is refuted: probes beyond ordinary values, and what users run, are left out."""


@dataclass(frozen=True)
class ReproducedDifference:
    """The smallest reproduction of where a candidate differs.

    Attributes:
        located: where it does: the one program.
        candidate: the candidate.
        reference: the reference.
        made: the reproduction.
    """

    located: LocatedProgram
    candidate: str
    reference: str
    made: Reproduction


def compare_programs(loaded: LoadedCase, progress: ReportStage) -> CaseState:
    """Compare what is needed to know which programs of a case differ.

    Args:
        loaded: the case.
        progress: called with a text for every stage.

    Raises:
        EquivError: the case, or its reference, cannot be used.
    """
    refuse_several_processes()
    with within_case(loaded):
        state = check_structure(open_case(loaded.case, progress))
        return advance(state, LOCATE if state.candidates else ())


def locate_case(loaded: LoadedCase, progress: ReportStage = lambda _: None) -> LocatedCase:
    """Find every divergence of every refuted program of a case; arguments and errors as of `compare_programs`."""
    state = compare_programs(loaded, progress)
    with within_case(loaded):
        return LocatedCase(
            loaded.name, state.reference, tuple(locate_candidate(state, name) for name in _every_candidate(state))
        )


def _every_candidate(state: CaseState) -> Sequence[str]:
    return [name for name in state.built_case.case.models if name != state.reference]


def locate_candidate(state: CaseState, candidate: str) -> LocatedCandidate:
    """Find every divergence of every refuted program of a candidate.

    Args:
        state: the case, its candidates checked.
        candidate: which one.
    """
    checks = [check for check in state.checks if check.candidate == candidate]
    verdict = verdict_of(tuple(checks))
    other = next(
        (one for one in checks if one.check == STRUCTURE and one.grade in ("refuted", "error", "not run")), None
    )
    broken = other or next((one for one in checks if one.grade == "error"), None)
    reason = broken.summary if broken else ""
    if candidate not in state.candidates or verdict == "same":
        return LocatedCandidate(candidate, verdict, reason, (), ())
    located = _name_differences(state, candidate)
    programs = tuple(_iterate_located(state, candidate, located))
    remarks = tuple(dict.fromkeys(remark for check in located for remark in check.remarks))
    return LocatedCandidate(candidate, verdict, reason, remarks, programs)


def _name_differences(state: CaseState, candidate: str) -> list[CheckResult]:
    """The checks of a candidate, with the first different equations, and whether the optimizers differ."""
    assert state.observed is not None, "its candidates are checked"
    left, right = state.traced[state.reference], state.traced[candidate]
    found = [check for check in state.checks if check.candidate == candidate and check.check != STRUCTURE]
    located = add_first_differences(found, left, right, state.proofs.get(candidate, {}))
    return add_optimizer_difference(located, left, right, state.observed.probes[0], state.built_case.case.steps)


def _iterate_located(state: CaseState, candidate: str, checks: list[CheckResult]) -> Iterator[LocatedProgram]:
    """Yield where each refuted program differs, the simplest first; each is looked for when it is asked for."""
    assert state.observed is not None, "its candidates are checked"
    left, right = state.traced[state.reference], state.traced[candidate]
    refuted = group_refuted(checks, left, right)
    state.progress(f"locating differences of {candidate}")
    explained = explain_programs(refuted, left, right, state.observed.probes, state.built_case.case.steps)
    for name, found in explained:
        yield _make_located(name, refuted[name], checks, found)


def _make_located(
    name: ProgramName, outputs: Sequence[OutputName], checks: Sequence[CheckResult], explained: Explanation | str
) -> LocatedProgram:
    findings = [one for check in checks for one in check.findings if _is_of(one, name)]
    worst = max(findings, key=severity, default=None)
    if isinstance(explained, str):
        remark = explained or "in float64 it does not differ on these probes: the difference is one of fewer digits"
        return LocatedProgram(name, worst, len(outputs), (), remark)
    remark = "there was no time to try every cause" if explained.ended else ""
    return LocatedProgram(name, worst, len(outputs), explained.divergences, remark)


def _is_of(finding: Finding, name: ProgramName) -> bool:
    output = finding.output
    if output is None or finding.grade != "refuted" or finding.error is None or output.after_training:
        return False
    return (STEP if output.program == TRAINING else output.program) == name


def reproduce_case(
    loaded: LoadedCase, candidate: str = "", progress: ReportStage = lambda _: None
) -> ReproducedDifference | Mapping[str, Verdict]:
    """Make the smallest reproduction of where a case differs; else the verdict of every candidate, where none does.

    Args:
        loaded: the case.
        candidate: the one to look at; empty: the first that differs.
        progress: called with a text for every stage.

    Raises:
        EquivError: the case cannot be used, has no such candidate, or what differs cannot be written as code.
    """
    state = compare_programs(loaded, progress)
    names = [name for name in _every_candidate(state) if candidate in ("", name)]
    if not names:
        known = ", ".join(_every_candidate(state))
        raise EquivError(f"{loaded.name} has no candidate {candidate!r}; it has {known}.", fix="Fix --candidate.")
    verdicts: dict[str, Verdict] = {
        name: verdict_of(tuple(one for one in state.checks if one.candidate == name)) for name in names
    }
    chosen = next((name for name in names if verdicts[name] == "different"), None)
    broken = [one for one in state.checks if one.candidate in names and one.grade == "error"]
    if chosen is None and broken:
        raise EquivError(broken[0].summary)
    if chosen is None:
        return verdicts
    with within_case(loaded):
        return _reproduce_candidate(state, chosen)


def _reproduce_candidate(state: CaseState, candidate: str) -> ReproducedDifference:
    if candidate not in state.candidates:
        why = locate_candidate(state, candidate).reason.removesuffix(".")
        raise EquivError(f"{candidate}: no program of it can be cut down: {why}.")
    assert state.observed is not None, "its candidates are checked"
    left, right = state.traced[state.reference], state.traced[candidate]
    probes, steps = state.observed.probes, state.built_case.case.steps
    checks = _name_differences(state, candidate)
    refuted = group_refuted(checks, left, right)
    problems: list[EquivError] = []
    ends = time.process_time() + MOST_SECONDS
    for program in _iterate_located(state, candidate, checks):
        name, several = program.program, len(program.divergences) > 1
        state.progress(f"making {name} smaller")
        with enable_x64(True):
            try:
                runs = make_runs(name, refuted[name], left, right, probes, steps)
                worst = _worst_output(program, runs)
                # Each leaf is updated by itself: no one value makes all of a train step right.
                made = (
                    reproduce_difference(runs, several, ends)
                    if name != STEP or worst is None
                    else reproduce_difference(narrow_runs(runs, worst), False, ends)
                )
                return ReproducedDifference(program, candidate, state.reference, made)
            except EquivError as error:
                problems.append(EquivError(f"{candidate}, {name}: {error.problem}", fix=error.fix))
        if time.process_time() > ends:
            break
    if problems:
        raise problems[0]
    raise EquivError(f"{candidate}: no program of it is refuted by its values.", fix="Call equiv locate.")


def _worst_output(program: LocatedProgram, runs: ProgramRuns) -> OutputName | None:
    """The refuted output of a program that is off most, where both programs have it."""
    output = program.worst.output if program.worst is not None else None
    own = None if output is None else output.of(program.program)
    both = [one for one in runs.refuted if one in runs.reference.outputs and one in runs.candidate.outputs]
    return own if own in both else next(iter(both), None)
