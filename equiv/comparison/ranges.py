"""Compare ports over the range of narrow dtypes, where that is not proved: float16 overflows where float32 does not.

A proof up to rewrites leaves casts out or computes in another order, and the other probes have values of the usual
size. What is proved without rewrites is the same operations on the same dtypes, and needs no such run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from equiv.comparison.checks.coverage import summarise_grades
from equiv.comparison.numeric.range_probe import RangeComparison, compare_ranges
from equiv.comparison.numeric.range_run import compile_ranges
from equiv.comparison.state import CaseState
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.scope import RangeTried
from equiv.core.verdict import check_grade
from equiv.errors import EquivError
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.range_limits import FloatRange, narrow_ranges
from equiv.programs.traced_port import TracedPort

RANGE_GRADES = frozenset(EQUAL_GRADES) - {"proved", "expected", "statistical"}
"""Grades of equality that say nothing of the range of a dtype."""


def probe_ranges(state: CaseState) -> CaseState:
    """Compare every candidate with the reference over the range of each dtype that is narrower than float32's."""
    checks, ranges = list(state.checks), list(state.ranges)
    for candidate in state.candidates:
        own = [check for check in checks if check.candidate == candidate]
        outputs = [item.output for check in own for item in check.findings if _is_open(item)]
        limits = _ranges_of(state, candidate, {one.program for one in outputs if one is not None})
        if not limits:
            continue
        try:
            findings, inputs = _compare(state, candidate, outputs, limits)
            why = ""
        except EquivError as error:
            findings, inputs, why = {}, (), str(error)
        ranges += [RangeTried(candidate, one.dtype, one.smallest, one.largest, inputs, why) for one in limits]
        checks = [_replace_findings(check, findings) if check in own else check for check in checks]
    return replace(state, checks=tuple(checks), ranges=tuple(ranges))


def _is_open(finding: Finding) -> bool:
    """Whether an output is equal as far as is known, and its range is not: what is proved by structure is settled."""
    output = finding.output
    return output is not None and finding.grade in RANGE_GRADES and not output.after_training and output.kind != "draw"


def _own_program(program: ProgramName) -> ProgramName:
    return STEP if program == TRAINING else program


def _ranges_of(state: CaseState, candidate: str, programs: set[ProgramName]) -> tuple[FloatRange, ...]:
    """The narrow ranges in which either port computes these programs."""
    names = set(map(_own_program, programs))
    sides = [state.traced[port] for port in (state.reference, candidate) if port in state.traced]
    found = {
        one
        for side in sides
        for part in all_programs(side.programs)
        if part.name in names
        for one in narrow_ranges(part)
    }
    return tuple(sorted(found, key=lambda one: one.dtype))


def _compare(
    state: CaseState, candidate: str, outputs: Sequence[OutputName | None], limits: tuple[FloatRange, ...]
) -> tuple[Mapping[OutputName, Finding], tuple[str, ...]]:
    reference, observed = state.traced.get(state.reference), state.observed
    if reference is None or observed is None:
        raise EquivError("a frozen reference cannot be run again.", fix="Run the case with the reference's library.")
    right = state.traced[candidate]
    shared = [one for one in outputs if one is not None and _is_in_both(one, reference, right)]
    names = frozenset(_own_program(one.program) for one in shared)
    state.progress(f"comparing {candidate} over the range of {' and '.join(one.dtype for one in limits)}")
    probes = [state.probes.get(port, observed.probes)[0] for port in (state.reference, candidate)]
    steps = state.built_case.case.steps
    sides = [compile_ranges(side, names, steps, probe) for side, probe in zip((reference, right), probes, strict=True)]
    comparison = RangeComparison(
        (sides[0], sides[1]),
        (probes[0], probes[1]),
        tuple(shared),
        limits,
        observed.noise.depth,
        state.built_case.case.budget_factor,
    )
    return compare_ranges(comparison)


def _is_in_both(output: OutputName, left: TracedPort, right: TracedPort) -> bool:
    """Whether both ports have an output of this name, and it is a float: others do not overflow to infinity."""
    own = output.of(_own_program(output.program))
    dtypes = [
        str(aval.dtype)
        for side in (left, right)
        for part in all_programs(side.programs)
        for name, aval in zip(part.outputs, part.jaxpr.out_avals, strict=True)
        if name == own
    ]
    return len(dtypes) == 2 and all("float" in dtype for dtype in dtypes)


def _replace_findings(check: CheckResult, found: Mapping[OutputName, Finding]) -> CheckResult:
    """A check with some of its findings replaced."""
    findings = tuple(
        item if item.output is None or item.output not in found else replace(found[item.output], rewrites=item.rewrites)
        for item in check.findings
    )
    if findings == check.findings:
        return check
    return replace(check, findings=findings, grade=check_grade(findings), summary=summarise_grades(findings))
