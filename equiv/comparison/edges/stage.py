"""The stage that looks where ordinary probes do not: runs both ports on edge probes, and changes the checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from equiv.comparison.checks.coverage import summarise_grades
from equiv.comparison.edges.design import design_edges
from equiv.comparison.edges.edge_probes import ZERO_INPUTS
from equiv.comparison.edges.judge import EdgeDifference, judge_edge
from equiv.comparison.edges.kinks import differ_in_kinks, differentiate_call
from equiv.comparison.edges.run_edges import measure_edge_responses, run_edges, run_port, run_reference_edges
from equiv.comparison.numeric.blocks import largest_finite
from equiv.comparison.numeric.own_rounding import OPERATION_NUDGES, nudge_port
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs
from equiv.comparison.observation import Comparison, EdgeProbe, PortOutputs, ReferenceEdges, RoundingNoise, Sample
from equiv.comparison.readings import name_frozen_limit
from equiv.comparison.state import CaseState, failed_checks
from equiv.core.grades import INPUT_CONDITIONS, REFUSAL_GRADES, Grade
from equiv.core.output_name import STEP, TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.errors import EquivError
from equiv.programs.exercise import Observed, merge_observed
from equiv.programs.probes import Probe

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


def try_edges(state: CaseState) -> CaseState:
    """Compare on edge probes what is not proved and agrees on ordinary ones.

    What is proved holds for every input, so a case that is proved is left alone, as is a candidate that differs. A
    frozen reference has been run on probes that are made for itself.
    """
    observed = state.observed
    if state.proved or observed is None or (state.compiled_reference is None and state.frozen_edges is None):
        return state
    contenders = {name: found for name in state.candidates if (found := _contender(state, name)) is not None}
    if not contenders:
        return state
    state.progress("looking beyond ordinary values")
    exercised = dict(state.exercised)
    try:
        reference = _reference_edges(state, contenders)
    except EquivError as error:
        return replace(state, edges_refused=str(error))  # a model may refuse such values
    if state.compiled_reference is not None:
        exercised[state.reference] = _merge(exercised.get(state.reference, {}), reference.samples)
    checks, ran = state.checks, list[str]()
    for name, one in contenders.items():
        try:
            given = run_edges(one.compiled, reference.edges)
        except EquivError as error:
            checks = (*(check for check in checks if check.candidate != name), *failed_checks(name, error))
            continue
        ran.append(name)
        exercised[name] = _merge(exercised.get(name, {}), given)
        differences = _judge(state, one, reference, given)
        differences += _judge_kinks(state, one, reference.edges)
        checks = tuple(
            _apply(check, observed.observed, observed.probes[0], differences) if check.candidate == name else check
            for check in checks
        )
        if state.compiled_reference is None and any(map(_is_doubted, differences)):
            checks = _name_frozen_limit(checks, name)
    return replace(
        state,
        checks=checks,
        exercised=exercised,
        edges=tuple(edge.probe for edge in reference.edges),
        edge_ports=(state.reference, *ran),
    )


def _reference_edges(state: CaseState, contenders: Mapping[str, _Contender]) -> ReferenceEdges:
    """Design edge probes for all ports and run the reference on them; a frozen one has its own."""
    if state.frozen_edges is not None:
        return state.frozen_edges
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "only a frozen reference is not compiled"
    ports = {state.reference: state.compiled_reference, **{name: one.compiled for name, one in contenders.items()}}
    compared = {output.program.is_training for one in contenders.values() for output in one.outputs}
    return run_reference_edges(state.compiled_reference, state.observed, design_edges(state, ports, compared))


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


def _judge(
    state: CaseState,
    contender: _Contender,
    reference: ReferenceEdges,
    given: Mapping[str, Sample],
) -> list[EdgeDifference]:
    """List what differs; what an earlier probe shows already is left out."""
    assert state.observed is not None, "run_reference comes before"
    comparison = Comparison(
        state.built_case.case,
        replace(state.observed.observed, samples=reference.samples),
        collect_outputs(contender.compiled, given),
        reference.noise,
    )
    found = list(_judge_in_order(comparison, reference.edges, contender.outputs))
    doubted = list(filter(_is_doubted, found))
    if doubted:
        # The other port may be the worse conditioned one, as where small numbers cancel.
        own = _measure_own_rounding(state, contender, doubted)
        found = list(_judge_in_order(replace(comparison, own_rounding=own), reference.edges, contender.outputs))
    return found


def _is_doubted(one: EdgeDifference) -> bool:
    """Whether what a port rounds by itself could explain a difference."""
    return not (one.edge.exact or one.overflows or one.edge.probe.late)


def _name_frozen_limit(checks: Sequence[CheckResult], candidate: str) -> tuple[CheckResult, ...]:
    named = iter(name_frozen_limit([check for check in checks if check.candidate == candidate]))
    return tuple(next(named) if check.candidate == candidate else check for check in checks)


def _judge_in_order(
    comparison: Comparison, edges: Sequence[EdgeProbe], outputs: Sequence[OutputName]
) -> Iterator[EdgeDifference]:
    left = list(outputs)
    for edge in edges:
        for one in judge_edge(comparison, edge, left):
            yield one
            if not one.is_remark and one.finding.output is not None:
                left.remove(one.finding.output)


def _measure_own_rounding(
    state: CaseState, contender: _Contender, doubted: Sequence[EdgeDifference]
) -> tuple[RoundingNoise | None, RoundingNoise | None]:
    """Measure what the operations of both ports round on the probes of differences; of a frozen reference, None."""
    programs = {one.finding.output.program for one in doubted if one.finding.output is not None}
    names = frozenset(STEP if program == TRAINING else program for program in programs)
    probes = list({one.edge.probe.name: one.edge.probe for one in doubted}.values())
    found: list[RoundingNoise | None] = []
    both = (state.compiled_reference, contender.compiled)
    for compiled, other in zip(both, reversed(both), strict=True):
        if compiled is None:
            found.append(None)
            continue
        try:
            nudged = nudge_port(compiled, probes[0], names, other)
            given = {probe.name: run_port(nudged, probe) for probe in probes}
            found.append(measure_edge_responses(nudged, given, probes, OPERATION_NUDGES))
        except EquivError:
            found.append(None)
    return found[0], found[1]


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
            size, known = (largest_finite(one.astype("float64")) for one in (array, given[name]))
            if known and size > known:
                return f"{name} times {size / known:.3g} (up to {size:.4g})"
    return f"the probe {probe.name}"


def _merge(known: Observed, given: Mapping[str, Sample]) -> Observed:
    return merge_observed([known, *(sample.exercised for sample in given.values())])
