"""Find where a refuted candidate parts from the reference by the values that both compute, and try causes there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from equiv.comparison.explain.beyond import find_beyond_gradients, find_beyond_loss
from equiv.comparison.explain.explanation import Explanation, explain_held, make_explanation
from equiv.comparison.explain.gradients import find_held
from equiv.comparison.explain.inputs import Ports, nudged_inputs, program_inputs
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.search import MAX_SECONDS, SearchResult, find_divergences, start_search
from equiv.comparison.explain.settings import find_settings
from equiv.comparison.explain.trying import FAILURES
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS
from equiv.comparison.readings import add_to_first_refused
from equiv.compat import enable_x64
from equiv.core.divergence import Divergence
from equiv.core.first_difference import OPTIMIZER, FirstDifference
from equiv.core.headline import severity
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError, error_summary
from equiv.programs.jaxpr import count_equations
from equiv.programs.probes import Probe
from equiv.programs.traced_port import TracedPort, trace_program_float64

MAX_EQUATIONS = 40_000
"""Most equations of a program that is run operation by operation some dozens of times."""


ENDED = f"not every cause of the difference in {{}} was tried: that ends after {MAX_SECONDS:.0f} s of processor time"

TOO_LARGE = f"where {{}} differs by its values was not looked for: it has {{}} equations, more than {MAX_EQUATIONS:,}"

FOLLOWS = (
    "it follows from what differs in {0}: with the causes that explain that, its gradients are the same",
    "it follows from what differs before: with the gradients of {1}, the updates are the same",
)
"""Of a gradient, and of a train step."""

FAILED = "where {} differs by its values was not found: {}. Please report it; the verdict does not depend on it"


def add_divergences(
    checks: list[CheckResult], left: TracedPort, right: TracedPort, probes: Sequence[Probe], steps: int
) -> list[CheckResult]:
    """Add to refuted checks where the simplest refuted program differs, and which causes were tried.

    Nothing is computed where nothing is refuted.

    Args:
        checks: of one candidate.
        left: the reference.
        right: the candidate.
        probes: the inputs of both.
        steps: number of train steps that the probes have batches for.
    """
    refuted = list(_refuted_outputs(checks, left, right))
    if not refuted:
        return checks
    name = min((output.program for output in refuted), key=lambda one: one.complexity)
    outputs = tuple(dict.fromkeys(output for output in refuted if output.program == name))
    found = _explain_program(name, outputs, left, right, _choose_probes(probes), steps)
    if isinstance(found, str):
        return add_to_first_refused(checks, found) if found else checks
    more = _explain_others(refuted, found, (left, right), _choose_probes(probes), steps)
    found = replace(found, divergences=(*found.divergences, *more))
    explained = [_add_to_check(check, found) for check in checks]
    return add_to_first_refused(explained, ENDED.format(name)) if found.ended else explained


def _explain_others(
    refuted: Sequence[OutputName], first: Explanation, ports: Ports, probes: Sequence[Probe], steps: int
) -> Iterator[Divergence]:
    """Yield what differs in a gradient, and in the optimizers, beside what the simplest program explains."""
    texts = _known_texts(first.divergences)
    gradients = (one.program for one in refuted if one.program.is_gradient and one.program != first.program)
    gradient = min(gradients, key=lambda one: one.complexity, default=None)
    for name in (gradient, STEP if first.program != STEP else None):
        outputs = tuple(dict.fromkeys(output for output in refuted if output.program == name))
        if name is None or not outputs or (name == gradient and not texts):
            continue
        found = explain_beyond(name, outputs, ports, probes, steps, texts, always=False)
        if found is not None:
            yield from found.divergences
        elif name == STEP:
            yield from _explain_settings(outputs, *ports, probes, steps)


def _known_texts(found: Sequence[Divergence]) -> frozenset[str]:
    """The causes of a program that explain it as a whole; empty: they do not."""
    if not all(one.causes for one in found) or not any(cause.within for one in found for cause in one.causes):
        return frozenset()
    return frozenset(cause.text for one in found for cause in one.causes)


def _explain_settings(
    outputs: tuple[OutputName, ...], left: TracedPort, right: TracedPort, probes: Sequence[Probe], steps: int
) -> tuple[Divergence, ...]:
    """What differs in the optimizers besides, where they cannot be run on equal gradients: only if constants differ."""
    ours, theirs = left.programs.step, right.programs.step
    names = left.port.name, right.port.name
    settings = [] if ours is None or theirs is None else find_settings((ours, theirs), names)
    if not settings:
        return ()
    found = _explain_program(STEP, outputs, left, right, probes, steps)
    known = () if isinstance(found, str) else found.divergences
    own = [one for one in known if one.causes and all(site.layer == OPTIMIZER for site in one.sites)]
    lines = {str(site.location) for one in own for site in one.sites}
    rest = [sites for sites in settings if not lines & {str(site.location) for site in sites}]
    # Where the gradients differ too, a change of the optimizer alone makes nothing the same.
    return (*own, *(Divergence(STEP, sites) for sites in ([] if own else rest)))


def explain_beyond(
    name: ProgramName,
    outputs: tuple[OutputName, ...],
    ports: Ports,
    probes: Sequence[Probe],
    steps: int,
    texts: frozenset[str],
    always: bool = True,
) -> Explanation | None:
    """Explain what differs in a gradient, or in a train step, beside what a simpler program explains.

    Args:
        name: of the program.
        outputs: those that are refuted.
        ports: the reference and the candidate.
        probes: the inputs of both.
        steps: number of train steps that the probes have batches for.
        texts: of the causes that explain the simpler program; empty: there are none.
        always: look at a gradient, even where equal losses have equal gradients.

    Returns:
        Its divergences, none where nothing else differs. None: that is not known.
    """
    tables = ports[0].table, ports[1].table
    with enable_x64(True):
        try:
            runs = make_runs(name, outputs, *ports, probes, steps)
            if name == STEP:
                found = find_beyond_gradients(runs, tables)
            else:
                found = find_beyond_loss(runs, name, ports, texts, always) if texts else None
        except FAILURES:  # a program that cannot be run or differentiated in this way must not cost the verdict
            return None
    if found is None:
        return None
    if found.held is not None and found.search is not None:
        return explain_held(name, found.held, found.search, ports)
    return make_explanation(name, found.found, tables)


def _choose_probes(probes: Sequence[Probe]) -> list[Probe]:
    """Two probes that differ in every value, where there are two."""
    return [one for one in probes if one.name not in (FRESH_STATE, LARGE_INPUTS)][:2] or list(probes[:1])


def _refuted_outputs(checks: list[CheckResult], left: TracedPort, right: TracedPort) -> Iterator[OutputName]:
    """Yield the refuted outputs of programs that both ports have; a train step for all of training."""
    shared = {part.name for part in left.programs.parts} & {part.name for part in right.programs.parts}
    if left.programs.step is not None and right.programs.step is not None:
        shared.add(STEP)
    for check in checks:
        for finding in check.findings:
            output = finding.output if finding.grade == "refuted" and finding.error else None
            if output is None or output.after_training:
                continue
            output = output.of(STEP) if output.program == TRAINING else output
            if output.program in shared:
                yield output


def _explain_program(
    name: ProgramName,
    outputs: tuple[OutputName, ...],
    left: TracedPort,
    right: TracedPort,
    probes: Sequence[Probe],
    steps: int,
) -> Explanation | str:
    """Explain why a program differs; else the reason why not, empty where it does not in float64 on these probes."""
    with enable_x64(True):
        try:
            pair = trace_program_float64(left, name), trace_program_float64(right, name)
            equations = max(count_equations(one.jaxpr) for one in pair)
            if equations > MAX_EQUATIONS:
                return TOO_LARGE.format(name, f"{equations:,}")
            inputs = [program_inputs(pair, (left, right), probe, steps) for probe in probes]
            nudged = [nudged_inputs(pair, (left, right), probe, steps) for probe in probes]
        except EquivError:
            return ""  # the note of its grade says why there is no float64 run
        runs = ProgramRuns(pair[0], pair[1], (left.port.name, right.port.name), inputs, nudged, outputs)
        try:
            search = start_search(runs)
            if search is not None and name.is_gradient and (held := find_held(search, name, (left, right))):
                return explain_held(name, held, search, (left, right))
            found = SearchResult() if search is None else find_divergences(runs, search)
        except Exception as error:  # noqa: BLE001 - an operation that cannot be run alone must not cost the verdict
            return FAILED.format(name, error_summary(error))
    if found.alignment is None or not found.divergences:
        return ""
    return make_explanation(name, found, (left.table, right.table))


def _add_to_check(check: CheckResult, found: Explanation) -> CheckResult:
    """Add to the worst refuted finding of a check where the program differs that it is about, or follows from."""
    refuted = [one for one in check.findings if one.grade == "refuted" and one.error is not None]
    if not refuted:
        return check
    worst = max(refuted, key=severity)
    sites = found.divergences[0].sites
    findings = tuple(_add_to_finding(one, found, sites, one is worst) for one in check.findings)
    own = any(one.output is not None and _program_of(one.output) == found.program for one in refuted)
    return replace(check, findings=findings, intermediates=found.values if own else ())


def _add_to_finding(finding: Finding, found: Explanation, sites: tuple[FirstDifference, ...], worst: bool) -> Finding:
    if finding.grade != "refuted" or finding.error is None:
        return finding
    return replace(finding, first_differences=sites, divergences=found.divergences if worst else ())


def _program_of(output: OutputName) -> ProgramName:
    return STEP if output.program == TRAINING else output.program


def group_refuted(
    checks: list[CheckResult], left: TracedPort, right: TracedPort
) -> dict[ProgramName, tuple[OutputName, ...]]:
    """The programs that are refuted by their values, with their refuted outputs, the simplest program first.

    Args:
        checks: of one candidate.
        left: the reference.
        right: the candidate.
    """
    found: dict[ProgramName, dict[OutputName, None]] = {}
    for output in _refuted_outputs(checks, left, right):
        found.setdefault(output.program, {})[output] = None
    return {name: tuple(found[name]) for name in sorted(found, key=lambda one: one.complexity)}


def explain_programs(
    refuted: Mapping[ProgramName, tuple[OutputName, ...]],
    left: TracedPort,
    right: TracedPort,
    probes: Sequence[Probe],
    steps: int,
) -> Iterator[tuple[ProgramName, Explanation | str]]:
    """Yield why each refuted program differs; else the reason why not, empty where it does not in float64.

    Args:
        refuted: the programs, with their refuted outputs.
        left: the reference.
        right: the candidate.
        probes: the inputs of both.
        steps: number of train steps that the probes have batches for.
    """
    first: Explanation | None = None
    for name, outputs in refuted.items():
        chosen, found = _choose_probes(probes), None
        if first is not None and (name.is_gradient or name == STEP):
            found = explain_beyond(name, outputs, (left, right), chosen, steps, _known_texts(first.divergences))
        if found is None:
            found = _explain_program(name, outputs, left, right, chosen, steps)
        elif first is not None and not found.divergences:
            found = FOLLOWS[name == STEP].format(first.program, left.port.name)
        first = first or (None if isinstance(found, str) else found)
        yield name, found


def make_runs(
    name: ProgramName,
    outputs: tuple[OutputName, ...],
    left: TracedPort,
    right: TracedPort,
    probes: Sequence[Probe],
    steps: int,
) -> ProgramRuns:
    """Make what both programs of a name are run on in float64; call it inside `jax.enable_x64(True)`.

    Args:
        name: of the program.
        outputs: those that are refuted.
        left: the reference.
        right: the candidate.
        probes: the inputs of both.
        steps: number of train steps that the probes have batches for.

    Raises:
        EquivError: a program cannot be traced in float64, or is too large to be run operation by operation.
    """
    pair = trace_program_float64(left, name), trace_program_float64(right, name)
    equations = max(count_equations(one.jaxpr) for one in pair)
    if equations > MAX_EQUATIONS:
        raise EquivError(f"{TOO_LARGE.format(name, f'{equations:,}')}.", fix="Give a smaller model.")
    inputs, nudged = (
        [function(pair, (left, right), probe, steps) for probe in _choose_probes(probes)]
        for function in (program_inputs, nudged_inputs)
    )
    return ProgramRuns(*pair, (left.port.name, right.port.name), inputs, nudged, outputs)
