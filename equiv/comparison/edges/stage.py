"""The stage that looks where ordinary probes do not: runs both ports on edge probes, and changes the checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile

from equiv.comparison.checks.coverage import summarise_grades
from equiv.comparison.edges.design import design_edges
from equiv.comparison.edges.edge_probes import ZERO_INPUTS
from equiv.comparison.edges.judge import EdgeDifference, judge_edge
from equiv.comparison.edges.kinks import differ_in_kinks, differentiate_call
from equiv.comparison.edges.run_edges import EdgeRun, run_in_parts, run_port, run_reference
from equiv.comparison.numeric.blocks import largest_finite
from equiv.comparison.numeric.fold import fetch_outputs
from equiv.comparison.numeric.own_rounding import Doubt
from equiv.comparison.numeric.own_runs import OwnRounding, OwnRuns, Side
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs
from equiv.comparison.observation import Comparison, EdgeProbe, PortOutputs, RoundingNoise, Sample
from equiv.comparison.readings import name_frozen_limit
from equiv.comparison.state import CaseState, failed_checks
from equiv.core.grades import INPUT_CONDITIONS, REFUSAL_GRADES, Grade
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.errors import EquivError
from equiv.programs.exercise import Observed, merge_observed
from equiv.programs.probes import Probe, widen_array

OPEN_GRADES: tuple[Grade, ...] = ("exact", "float64", "rounding", "vacuous", "unidentifiable")
"""Grades of outputs that agree by numbers alone."""


@dataclass(frozen=True)
class _Contender:
    """A candidate with outputs that only numbers can decide.

    Attributes:
        compiled: the candidate.
        outputs: those outputs.
    """

    compiled: CompiledPort
    outputs: tuple[OutputName, ...]


@dataclass(frozen=True)
class _Tried:
    """What a contender gave on edge probes.

    Attributes:
        exercised: what it exercised.
        found: what differs.
        problem: why it could not be run on one of them; None: it could.
    """

    exercised: Observed = field(default_factory=dict)
    found: tuple[EdgeDifference, ...] = ()
    problem: EquivError | None = None


def try_edges(state: CaseState) -> CaseState:
    """Compare on edge probes what is not proved and agrees on ordinary ones.

    What is proved holds for every input, so a case that is proved is left alone, as is a candidate that differs. A
    frozen reference has been run on probes that are made for itself. Probes are run one after the other: nothing is
    kept of one but what differs on it.
    """
    observed = state.observed
    if state.proved or observed is None or (state.compiled_reference is None and state.frozen_edges is None):
        return state
    contenders = {name: found for name in state.candidates if (found := _contender(state, name)) is not None}
    if not contenders:
        return state
    state.progress("looking beyond ordinary values")
    try:
        edges = _list_edges(state, contenders)
        seen, noises, tried = _try_contenders(state, contenders, edges)
    except EquivError as error:
        return replace(state, edges_refused=str(error))  # a model may refuse such values
    exercised = {**state.exercised, **seen}
    checks, ran = state.checks, list[str]()
    for name, one in tried.items():
        if one.problem is not None:
            checks = (*(check for check in checks if check.candidate != name), *failed_checks(name, one.problem))
            continue
        one = _look_closer(state, contenders[name], edges, noises, one)
        ran.append(name)
        exercised[name] = merge_observed([exercised.get(name, {}), one.exercised])
        checks = tuple(
            _apply(check, observed.observed, observed.probes[0], one.found) if check.candidate == name else check
            for check in checks
        )
        if state.compiled_reference is None and any(map(_is_doubted, one.found)):
            checks = _name_frozen_limit(checks, name)
    return replace(
        state,
        checks=checks,
        exercised=exercised,
        edges=tuple(edge.probe for edge in edges),
        edge_ports=(state.reference, *ran),
    )


def _list_edges(state: CaseState, contenders: Mapping[str, _Contender]) -> Sequence[EdgeProbe]:
    """Design edge probes for all ports; a frozen reference has its own."""
    if state.frozen_edges is not None:
        return state.frozen_edges.edges
    assert state.compiled_reference is not None, "only a frozen reference is not compiled"
    ports = {state.reference: state.compiled_reference, **{name: one.compiled for name, one in contenders.items()}}
    compared = {output.program.is_training for one in contenders.values() for output in one.outputs}
    return design_edges(state, ports, compared)


def _run_reference(state: CaseState, edges: Sequence[EdgeProbe]) -> Iterator[EdgeRun]:
    """Run the reference on one probe after the other; a frozen one has its outputs."""
    frozen = state.frozen_edges
    if frozen is not None:
        return (EdgeRun(edge, frozen.samples[edge.probe.name], frozen.noise) for edge in edges)
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "only a frozen reference is not compiled"
    return run_reference(state.compiled_reference, state.observed, edges)


def _try_contenders(
    state: CaseState, contenders: Mapping[str, _Contender], edges: Sequence[EdgeProbe]
) -> tuple[Mapping[str, Observed], list[RoundingNoise], dict[str, _Tried]]:
    """Compare all contenders on one probe after the other.

    Returns:
        The reference, where it was run, to what it exercised; its noise on each probe; and what each contender gave.

    Raises:
        EquivError: the reference cannot be run on a probe.
    """
    seen = [state.exercised.get(state.reference, {})]
    tried = dict.fromkeys(contenders, _Tried())
    noises: list[RoundingNoise] = []
    for run in _run_reference(state, edges):
        seen.append(run.sample.exercised)
        noises.append(run.noise)
        for name, one in contenders.items():
            tried[name] = _try_edge(state, one, run, tried[name])
        del run
    own = {} if state.compiled_reference is None else {state.reference: merge_observed(seen)}
    return own, noises, tried


def _try_edge(state: CaseState, contender: _Contender, run: EdgeRun, before: _Tried) -> _Tried:
    """Compare a contender on one probe; what an earlier probe shows already is left out."""
    if before.problem is not None:
        return before
    settled = {one.finding.output for one in before.found if not one.is_remark}
    outputs = [output for output in contender.outputs if output not in settled]
    try:
        given = run_port(contender.compiled, run.edge.probe)
        found = judge_edge(_compare(state, contender, run, given), run.edge, outputs)
    except EquivError as error:
        return _Tried(problem=error)
    return _Tried(merge_observed([before.exercised, given.exercised]), (*before.found, *found))


def _compare(state: CaseState, contender: _Contender, run: EdgeRun, given: Sample) -> Comparison:
    assert state.observed is not None, "run_reference comes before"
    name = run.edge.probe.name
    ours = replace(state.observed.observed, samples={name: run.sample})
    theirs = collect_outputs(contender.compiled, {name: given})
    comparison = Comparison(state.built_case.case, ours, theirs, run.noise)
    # Where constants were read otherwise on ordinary values, those of the ports as they are differ on all others, too.
    read = state.readings.get(theirs.table.port)
    return comparison if read is None else read(comparison, run.edge.probe)


def _contender(state: CaseState, name: str) -> _Contender | None:
    checks = [check for check in state.checks if check.candidate == name]
    known = {one.leaf for one in state.built_case.case.known_differences}
    outputs = tuple(output for output in dict.fromkeys(_open_outputs(checks)) if output.leaf not in known)
    if name not in state.compiling or not outputs or any(check.grade in REFUSAL_GRADES for check in checks):
        return None
    return _Contender(state.compiling[name](), outputs)


def _open_outputs(checks: Sequence[CheckResult]) -> Iterator[OutputName]:
    for check in checks:
        for finding in check.findings:
            if finding.output is not None and _is_open(finding) and not finding.output.after_training:
                yield finding.output


def _is_open(finding: Finding) -> bool:
    """Whether an output agrees by numbers alone, or is proved for inputs that the case need not have."""
    conditional = finding.grade == "proved modulo" and not INPUT_CONDITIONS.isdisjoint(finding.rewrites)
    return finding.grade in OPEN_GRADES or conditional


def _look_closer(
    state: CaseState,
    contender: _Contender,
    edges: Sequence[EdgeProbe],
    noises: Sequence[RoundingNoise],
    tried: _Tried,
) -> _Tried:
    """Compare what differs once more, with what each port's operations round; and derivatives exactly at kinks."""
    found, first = tried.found, _find_doubts(tried.found)
    # The other port may be the worse conditioned one, as where small numbers cancel.
    runs, doubts = _own_runs(state, contender, tried.found), first
    probes = {doubt.probe for doubt in first}
    while doubts and runs.measure(doubts):
        found = tuple(_judge_again(state, contender, edges, noises, runs.known, tried.found))
        doubts = {doubt: names for doubt, names in _find_doubts(found).items() if doubt.probe in probes}
    return replace(tried, found=(*found, *_judge_kinks(state, contender, edges)))


def _judge_again(
    state: CaseState,
    contender: _Contender,
    edges: Sequence[EdgeProbe],
    noises: Sequence[RoundingNoise],
    own: OwnRounding,
    known: Sequence[EdgeDifference],
) -> Iterator[EdgeDifference]:
    """Run both ports again, from the first probe on which something differs, for the arrays of what does."""
    differing, first = {one.finding.output for one in known}, {one.edge.probe.name for one in known}
    left = [output for output in contender.outputs if output in differing]
    pairs = zip(edges, noises, strict=True)
    for edge, noise in dropwhile(lambda pair: pair[0].probe.name not in first, pairs):
        if not left:
            return
        run = EdgeRun(edge, _sample_of_reference(state, edge), noise)
        comparison = _compare(state, contender, run, run_port(contender.compiled, edge.probe))
        wanted = {edge.probe.name: set(left)}
        ours, theirs = (fetch_outputs(side, wanted) for side in (comparison.reference, comparison.candidate))
        for one in judge_edge(replace(comparison, reference=ours, candidate=theirs, own_rounding=own), edge, left):
            yield one
            if not one.is_remark and one.finding.output is not None:
                left.remove(one.finding.output)


def _sample_of_reference(state: CaseState, edge: EdgeProbe) -> Sample:
    if state.frozen_edges is not None:
        return state.frozen_edges.samples[edge.probe.name]
    assert state.compiled_reference is not None, "only a frozen reference is not compiled"
    return run_port(state.compiled_reference, edge.probe)


def _is_doubted(one: EdgeDifference) -> bool:
    """Whether what a port rounds by itself could explain a difference."""
    return not (one.edge.exact or one.overflows or one.edge.probe.late)


def _name_frozen_limit(checks: Sequence[CheckResult], candidate: str) -> tuple[CheckResult, ...]:
    named = iter(name_frozen_limit([check for check in checks if check.candidate == candidate]))
    return tuple(next(named) if check.candidate == candidate else check for check in checks)


def _find_doubts(differences: Sequence[EdgeDifference]) -> dict[Doubt, frozenset[ProgramName]]:
    """The runs that differ by what a port may round by itself, and their programs.

    A difference counts only where both precisions have it, so that either may explain it.
    """
    found: dict[Doubt, frozenset[ProgramName]] = {}
    for one in filter(_is_doubted, differences):
        if one.finding.output is not None:
            program = one.finding.output.program
            for in_float64 in (False, True)[: 1 + (one.finding.precision == "float64")]:
                doubt = Doubt(one.edge.probe.name, in_float64)
                found[doubt] = found.get(doubt, frozenset()) | {STEP if program == TRAINING else program}
    return found


def _own_runs(state: CaseState, contender: _Contender, differences: Sequence[EdgeDifference]) -> OwnRuns:
    """Both ports, to be run with every operation moved on the probes of differences; a frozen reference has no runs."""
    probes = [one.edge.probe for one in differences]
    ours, theirs = (Side(one, probes, {}) for one in (state.compiled_reference, contender.compiled))
    return OwnRuns((ours, theirs), stream=run_in_parts)


def _judge_kinks(state: CaseState, contender: _Contender, edges: Sequence[EdgeProbe]) -> list[EdgeDifference]:
    """Compare derivatives of calls exactly at kinks, where both ports have other ones."""
    assert state.observed is not None, "run_reference comes before"
    if state.compiled_reference is None:
        return []  # a frozen reference has no programs to differentiate
    ports = (state.compiled_reference, contender.compiled)
    edge = next((edge for edge in edges if edge.probe.name == ZERO_INPUTS), None)
    gradients = [output for output in contender.outputs if output.kind == "gradient"]
    found: list[EdgeDifference] = []
    for method in dict.fromkeys(output.program.method for output in gradients):
        if edge is None or not differ_in_kinks(ports, method):
            continue
        try:
            ours, theirs = ({ZERO_INPUTS: differentiate_call(port, method, edge.probe)} for port in ports)
        except EquivError:
            continue  # a host function has no derivative
        comparison = Comparison(
            state.built_case.case,
            replace(state.observed.observed, samples=ours),
            collect_outputs(contender.compiled, theirs),
            RoundingNoise({}, {}, state.observed.noise.depth),
        )
        own = [output for output in gradients if output.program.method == method]
        trained = [output for output in own if output.program.kind == "gradient"]
        found += judge_edge(comparison, edge, trained or own)  # one call was differentiated, for both modes
    return found


def _apply(
    check: CheckResult, reference: PortOutputs, ordinary: Probe, differences: Sequence[EdgeDifference]
) -> CheckResult:
    """Refute what differs; where only gradients do, at kinks or by overflow, say so."""
    refuted = {one.finding.output: one.finding for one in differences if not one.is_remark}
    findings = tuple(_replace_finding(finding, refuted) for finding in check.findings)
    remarks = [*check.remarks]
    remarked = [one for one in differences if one.is_remark and _is_compared(check, one)]
    for exact in (True, False):
        same_kind = [one for one in remarked if one.edge.exact is exact]
        if same_kind and not refuted:
            remarks.append(describe_remark((reference.table.port, check.candidate), same_kind, ordinary))
    if findings == check.findings:
        return replace(check, remarks=tuple(remarks))
    summary = summarise_grades(findings)
    return replace(check, findings=findings, grade=check_grade(findings), summary=summary, remarks=tuple(remarks))


def _replace_finding(finding: Finding, refuted: Mapping[OutputName | None, Finding]) -> Finding:
    found = refuted.get(finding.output) if finding.output is not None and _is_open(finding) else None
    return finding if found is None else replace(found, place=finding.place)


def _is_compared(check: CheckResult, one: EdgeDifference) -> bool:
    return any(finding.output == one.finding.output for finding in check.findings)


def describe_remark(ports: tuple[str, str], remarked: Sequence[EdgeDifference], ordinary: Probe) -> str:
    """Say that gradients differ where values do not: where, by what, and in how many elements.

    Args:
        ports: names of the reference and of the candidate.
        remarked: what differs; not empty, all exactly at kinks, or all by overflow.
        ordinary: the probe that edge probes were made from.
    """
    first = max(remarked, key=lambda one: (one.edge.probe.name == ZERO_INPUTS, one.finding.error or 0.0))
    finding, others = first.finding, {one.finding.output for one in remarked} - {first.finding.output}
    more = f", and of {len(others)} more" if others else ""
    place = first.edge.probe.name
    if first.edge.exact:
        place = f"at exactly {'0' if place.startswith('zero') else 'a threshold'}"
    what = f"{place} the gradients differ, and agree on ordinary values"
    if not first.edge.exact:
        scale = _describe_scale(first.edge.probe, ordinary)
        what = f"with {scale} gradients are finite in one port alone, and values agree"
    return (
        f"{what}: {finding.output.text if finding.output else finding.place} is {finding.reference} ({ports[0]}), "
        f"{finding.candidate} ({ports[1]}) in {first.count} of {first.size} elements{more}"
    )


def _describe_scale(probe: Probe, ordinary: Probe) -> str:
    """Say by how much a probe is an ordinary one scaled: its inputs, or else its parameters."""
    for arrays, given in ((probe.batches, ordinary.batches), (probe.variables, ordinary.variables)):
        for name, array in arrays.items():
            size, known = (largest_finite(widen_array(one)) for one in (array, given[name]))
            if known and size > known:
                return f"{name} times {size / known:.3g} (up to {size:.4g})"
    return f"the probe {probe.name}"
