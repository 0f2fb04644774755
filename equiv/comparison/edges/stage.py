"""The stage that looks where ordinary probes do not: runs both ports on edge probes, and changes the checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from equiv.backends.build import call_user_code
from equiv.comparison.checks.coverage import summarise_grades
from equiv.comparison.edges.aim import aim_probes
from equiv.comparison.edges.edge_probes import (
    ONE_NUMBER,
    ZERO_INPUTS,
    EdgeProbe,
    exact_numbers,
    exact_values,
    late_probes,
    small_gradients,
    small_inputs,
    with_whole_numbers,
    zero_inputs,
)
from equiv.comparison.edges.judge import EdgeDifference, exact_noise, judge_edge
from equiv.comparison.edges.kinks import differ_in_kinks, differentiate_call
from equiv.comparison.numeric.own_rounding import OPERATION_NUDGES, nudge_port
from equiv.comparison.numeric.rounding import ROUNDING_NUDGES, measure_responses
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs
from equiv.comparison.observation import Comparison, Outputs, RoundingNoise, Sample
from equiv.comparison.state import CaseState, failed_checks
from equiv.core.grades import INPUT_CONDITIONS, REFUSAL_GRADES, Grade
from equiv.core.leaves import LeafTable
from equiv.core.output_name import STEP, TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.errors import EquivError
from equiv.programs.compiled import Executable, run_observed
from equiv.programs.counters import counter_literals
from equiv.programs.exercise import Observed, integer_literals, merge_observed
from equiv.programs.probes import Probe
from equiv.programs.prover.prove import all_programs

OPEN_GRADES: tuple[Grade, ...] = ("exact", "float64", "rounding", "vacuous", "unidentifiable")
"""Grades of outputs that agree by numbers alone."""

DRAW_TAILS = (0.0, 1.0)
"""The ends of what a draw can be."""


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

    What is proved holds for every input, so a case that is proved is left alone, as is a candidate that differs.
    """
    if state.proved or state.observed is None or state.compiled_reference is None:
        return state
    contenders = {name: found for name in state.candidates if (found := _contender(state, name)) is not None}
    if not contenders:
        return state
    state.progress("looking beyond ordinary values")
    try:
        edges = _design(state, contenders)
        reference = _run_reference(state, edges)
    except EquivError as error:
        return replace(state, edges_refused=str(error))  # a model may refuse such values
    exercised = dict(state.exercised)
    exercised[state.reference] = _merge(exercised.get(state.reference, {}), reference[0])
    checks, ran = state.checks, list[str]()
    for name, one in contenders.items():
        try:
            given = {edge.probe.name: _run(one.compiled, edge.probe) for edge in edges}
        except EquivError as error:
            checks = (*(check for check in checks if check.candidate != name), *failed_checks(name, error))
            continue
        ran.append(name)
        exercised[name] = _merge(exercised.get(name, {}), given)
        differences = _judge(state, one, edges, reference, given)
        differences += _judge_kinks(state, one, edges)
        checks = tuple(
            _apply(check, state.reference, differences) if check.candidate == name else check for check in checks
        )
    return replace(
        state,
        checks=checks,
        exercised=exercised,
        edges=tuple(edge.probe for edge in edges),
        edge_ports=(state.reference, *ran),
    )


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


def _design(state: CaseState, contenders: Mapping[str, _Contender]) -> list[EdgeProbe]:
    """Make the edge probes of a case: only those that compare something."""
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "run_reference comes before"
    ports = {state.reference: state.compiled_reference, **{name: one.compiled for name, one in contenders.items()}}
    outputs = {output for one in contenders.values() for output in one.outputs}
    probe, table, built_case = state.observed.probes[0], state.compiled_reference.table, state.built_case
    known = {name: state.exercised.get(name, {}) for name in ports}
    compared = {output.program.is_training for output in outputs}
    aimed = aim_probes(probe, table, known, {name: partial(_observe, one) for name, one in ports.items()}, compared)
    edges = [EdgeProbe(one, not site.training, site.training, overflows=site.kind == "overflow") for one, site in aimed]
    if False in compared:
        edges += _call_edges(probe, table, ports, known)
    programs = [part for one in ports.values() for part in all_programs(one.traced.programs)]
    if any(part.draws for part in programs):
        tails = replace(probe, name="tails of draws", tails=_tails(list(known.values())))
        edges.append(EdgeProbe(tails, False in compared, True in compared))
    if True in compared:
        edges += _training_edges(probe, table, ports, built_case.case.steps)
    whole = {one for port in ports.values() for part in port.traced.programs.parts for one in integer_literals(part)}
    return with_whole_numbers(edges, built_case.entries, whole)


def _call_edges(
    probe: Probe, table: LeafTable, ports: Mapping[str, CompiledPort], known: Mapping[str, Observed]
) -> Iterator[EdgeProbe]:
    """Make the edge probes of calls and gradients that need no search."""
    yield EdgeProbe(small_inputs(probe, table))
    if any(array.dtype.kind in "iu" for array in probe.batches.values()):
        yield EdgeProbe(replace(probe, name=ONE_NUMBER))
    yield from (EdgeProbe(zero_inputs(probe, table, kernels), exact=True) for kernels in (False, True))
    bounds = [{site.bound for site in observed if site.kind == "threshold"} for observed in known.values()]
    every, shared = set[float]().union(*bounds), set.intersection(*bounds)
    if every - {0.0}:
        yield EdgeProbe(exact_values(probe, table, exact_numbers(every, shared)), exact=True, guarded=True)


def _training_edges(
    probe: Probe, table: LeafTable, ports: Mapping[str, CompiledPort], steps: int
) -> Iterator[EdgeProbe]:
    """Make the edge probes of training: where its counters are late, and where its gradients are small."""
    trained = {name: step for name, one in ports.items() if (step := one.traced.programs.step) is not None}
    if any(name.kind == "optimizer" and name.leaf for step in trained.values() for name in step.inputs):
        yield EdgeProbe(small_gradients(probe, table), calls=False, training=True)
    counters = {name: found for name in trained if (found := ports[name].native.counters) is not None}
    if counters:
        met = {name: counter_literals(trained[name], found.names) for name, found in counters.items()}
        every = frozenset[int]().union(*met.values())
        # Each port's own counters say after how many steps they are at what either port compares with.
        near = [number + move for number in sorted(every) for move in (-1, 0)]
        near += [step for found in counters.values() for number in sorted(every) for step in found.around(number)]
        rounds = max(found.round for found in counters.values())
        yield from late_probes(probe, near, steps, rounds)


def _tails(exercised: Sequence[Observed]) -> tuple[float, ...]:
    """The ends of a draw, and a number between each two rates that ports compare one with."""
    rates = sorted(
        {site.bound for seen in exercised for site in seen if site.kind == "threshold" and 0 < site.bound < 1}
    )
    between = [(one + other) / 2 for one, other in pairwise(rates)]
    return (*DRAW_TAILS, *between)


def _observe(compiled: CompiledPort, probe: Probe) -> Observed:
    return _call(compiled, compiled.native, probe)[1]


def _call(compiled: CompiledPort, executable: Executable, probe: Probe) -> tuple[Outputs, Observed]:
    return call_user_code(compiled.traced.port.name, "running", partial(run_observed, executable, probe))


def _run(compiled: CompiledPort, probe: Probe) -> Sample:
    native, exercised = _call(compiled, compiled.native, probe)
    float64 = None if compiled.float64 is None else _call(compiled, compiled.float64, probe)[0]
    return Sample(native, float64, exercised)


def _run_reference(state: CaseState, edges: Sequence[EdgeProbe]) -> tuple[dict[str, Sample], RoundingNoise]:
    """Run the reference on all edge probes, and measure its rounding, or derive it where nothing may be nudged."""
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "run_reference comes before"
    compiled, known = state.compiled_reference, state.observed
    given = {edge.probe.name: _run(compiled, edge.probe) for edge in edges}
    nudged = [edge.probe for edge in edges if not edge.exact]
    noise = replace(_measure_responses(compiled, given, nudged, ROUNDING_NUDGES), depth=known.noise.depth)
    ordinary = known.probes[0].name
    derived = {
        edge.probe.name: exact_noise(known.noise, known.observed.samples[ordinary], given[edge.probe.name], ordinary)
        for edge in edges
        if edge.exact
    }
    return given, replace(
        noise,
        native={**noise.native, **{name: pair[0] for name, pair in derived.items()}},
        float64={**noise.float64, **{name: pair[1] for name, pair in derived.items()}},
    )


def _measure_responses(
    compiled: CompiledPort, given: Mapping[str, Sample], probes: Sequence[Probe], nudges: int
) -> RoundingNoise:
    """Measure how far each output moves with every input by an ulp, without another call after training."""

    def run(executable: Executable, probe: Probe) -> Outputs:
        return _call(compiled, executable, probe)[0]

    native = {name: sample.native for name, sample in given.items()}
    found = measure_responses(partial(run, compiled.native), native, probes, False, nudges)
    if compiled.float64 is None:
        return RoundingNoise(found, {}, {})
    float64 = {name: sample.float64 for name, sample in given.items() if sample.float64 is not None}
    return RoundingNoise(found, measure_responses(partial(run, compiled.float64), float64, probes, True, nudges), {})


def _judge(
    state: CaseState,
    contender: _Contender,
    edges: Sequence[EdgeProbe],
    reference: tuple[dict[str, Sample], RoundingNoise],
    given: Mapping[str, Sample],
) -> list[EdgeDifference]:
    """List what differs; what an earlier probe shows already is left out."""
    assert state.observed is not None, "run_reference comes before"
    samples, noise = reference
    comparison = Comparison(
        state.built_case.case,
        replace(state.observed.observed, samples=samples),
        collect_outputs(contender.compiled, given),
        noise,
    )
    found = list(_judge_in_order(comparison, edges, contender.outputs))
    doubted = [one for one in found if not (one.edge.exact or one.overflows or one.edge.probe.late)]
    if doubted:
        # The other port may be the worse conditioned one, as where small numbers cancel.
        own = _measure_own_rounding(state, contender, doubted)
        found = list(_judge_in_order(replace(comparison, own_rounding=own), edges, contender.outputs))
    return found


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
    """Measure what the operations of both ports round on the probes of differences."""
    assert state.compiled_reference is not None, "run_reference comes before"
    programs = {one.finding.output.program for one in doubted if one.finding.output is not None}
    names = frozenset(STEP if program == TRAINING else program for program in programs)
    probes = list({one.edge.probe.name: one.edge.probe for one in doubted}.values())
    found: list[RoundingNoise | None] = []
    for compiled in (state.compiled_reference, contender.compiled):
        try:
            nudged = nudge_port(compiled, probes[0], names)
            given = {probe.name: _run(nudged, probe) for probe in probes}
            found.append(_measure_responses(nudged, given, probes, OPERATION_NUDGES))
        except EquivError:
            found.append(None)
    return found[0], found[1]


def _judge_kinks(state: CaseState, contender: _Contender, edges: Sequence[EdgeProbe]) -> list[EdgeDifference]:
    """Compare derivatives of calls exactly at kinks, where both ports have other ones."""
    assert state.observed is not None, "run_reference comes before"
    assert state.compiled_reference is not None, "run_reference comes before"
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


def _apply(check: CheckResult, reference: str, differences: Sequence[EdgeDifference]) -> CheckResult:
    """Refute what differs; where only gradients do, at kinks or by overflow, say so."""
    refuted = {one.finding.output: one.finding for one in differences if not one.is_remark}
    findings = tuple(_replace_finding(finding, refuted) for finding in check.findings)
    remarks = [*check.remarks]
    remarked = [one for one in differences if one.is_remark and _is_compared(check, one)]
    if remarked and not refuted:
        remarks.append(describe_remark((reference, check.candidate), remarked))
    if findings == check.findings:
        return replace(check, remarks=tuple(remarks))
    summary = summarise_grades(findings)
    return replace(check, findings=findings, grade=check_grade(findings), summary=summary, remarks=tuple(remarks))


def _replace_finding(finding: Finding, refuted: Mapping[OutputName | None, Finding]) -> Finding:
    found = refuted.get(finding.output) if finding.output is not None and _is_open(finding) else None
    return finding if found is None else replace(found, place=finding.place)


def _is_compared(check: CheckResult, one: EdgeDifference) -> bool:
    return any(finding.output == one.finding.output for finding in check.findings)


def describe_remark(ports: tuple[str, str], remarked: Sequence[EdgeDifference]) -> str:
    """Say that gradients differ where values do not: where, by what, and in how many elements.

    Args:
        ports: names of the reference and of the candidate.
        remarked: what differs; not empty.
    """
    first = max(remarked, key=lambda one: (one.edge.probe.name == ZERO_INPUTS, one.finding.error or 0.0))
    finding, others = first.finding, {one.finding.output for one in remarked} - {first.finding.output}
    more = f", and of {len(others)} more" if others else ""
    place = first.edge.probe.name
    if first.edge.exact:
        place = f"at exactly {'0' if place.startswith('zero') else 'a threshold'}"
    return (
        f"{place} the gradients differ, and agree on ordinary values: "
        f"{finding.output.text if finding.output else finding.place} is {finding.reference} ({ports[0]}), "
        f"{finding.candidate} ({ports[1]}) in {first.count} of {first.size} elements{more}"
    )


def _merge(known: Observed, given: Mapping[str, Sample]) -> Observed:
    return merge_observed([known, *(sample.exercised for sample in given.values())])
