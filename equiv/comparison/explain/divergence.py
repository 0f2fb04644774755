"""Find where a refuted candidate parts from the reference by the values that both compute, and try causes there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide, Alignment
from equiv.comparison.explain.gradients import HeldCause, find_held
from equiv.comparison.explain.inputs import nudged_inputs, program_inputs
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import Operation
from equiv.comparison.explain.search import (
    MAX_SECONDS,
    FoundDivergence,
    SearchResult,
    align_candidate,
    find_divergences,
    start_search,
)
from equiv.comparison.explain.settings import find_settings
from equiv.comparison.explain.sites import describe_site, describe_sites, worst_values
from equiv.comparison.explain.trying import Search
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS
from equiv.comparison.readings import add_to_first_refused
from equiv.compat import enable_x64
from equiv.core.budget import rounding_growth
from equiv.core.divergence import Divergence, TriedCause
from equiv.core.first_difference import OPTIMIZER, FirstDifference, is_backward, strip_transforms
from equiv.core.headline import severity
from equiv.core.leaves import LeafTable
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding, Intermediate
from equiv.errors import EquivError, error_summary
from equiv.programs.jaxpr import count_equations, locate_equation
from equiv.programs.primitives import EXACT
from equiv.programs.probes import Probe
from equiv.programs.traced_port import TracedPort, trace_program_float64

MAX_VALUES = 400
"""Most values of a program that are listed: those around the divergence."""

MAX_EQUATIONS = 40_000
"""Most equations of a program that is run operation by operation some dozens of times."""


@dataclass(frozen=True)
class Explanation:
    """Where and why one program differs.

    Attributes:
        program: which one.
        divergences: the one that accounts for most first.
        values: those that the reference computes, around the first divergence.
        ended: whether there was no time to try every cause.
    """

    program: ProgramName
    divergences: tuple[Divergence, ...]
    values: tuple[Intermediate, ...]
    ended: bool = False


ENDED = f"not every cause of the difference in {{}} was tried: that ends after {MAX_SECONDS:.0f} s of processor time"

TOO_LARGE = f"where {{}} differs by its values was not looked for: it has {{}} equations, more than {MAX_EQUATIONS:,}"

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
    steps_refuted = tuple(dict.fromkeys(output for output in refuted if output.program == STEP))
    if steps_refuted and name != STEP:
        more = _explain_settings(steps_refuted, left, right, _choose_probes(probes), steps)
        found = replace(found, divergences=(*found.divergences, *more))
    explained = [_add_to_check(check, found) for check in checks]
    return add_to_first_refused(explained, ENDED.format(name)) if found.ended else explained


def _explain_settings(
    outputs: tuple[OutputName, ...], left: TracedPort, right: TracedPort, probes: Sequence[Probe], steps: int
) -> tuple[Divergence, ...]:
    """What differs in the optimizers besides; the train step is run only where their constants differ."""
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
                return _explain_held(name, held, search, (left, right))
            found = SearchResult() if search is None else find_divergences(runs, search)
        except Exception as error:  # noqa: BLE001 - an operation that cannot be run alone must not cost the verdict
            return FAILED.format(name, error_summary(error))
    if found.alignment is None or not found.divergences:
        return ""
    tables = left.table, right.table
    divergences = _drop_repeated([_make_divergence(name, one, tables) for one in found.divergences])
    return Explanation(name, divergences, list_values(found.alignment), found.ended)


def _explain_held(
    name: ProgramName, held: HeldCause, search: Search, ports: tuple[TracedPort, TracedPort]
) -> Explanation:
    """The explanation that is what one port holds fixed in its loss."""
    losses = held.alignment.reference, held.alignment.candidate
    operations = held.trial.ours, held.trial.theirs
    sites = tuple(
        describe_site(port.port.name, side, operation, port.table)
        for port, side, operation in zip(ports, losses, operations, strict=True)
        if operation is not None
    )
    equal = _count_equal(losses[0], held.trial.ours)
    one = Divergence(name, sites, (TriedCause(held.trial.text, 0.0, True),), equal)
    alignment = align_candidate(search)
    return Explanation(name, (one,), () if alignment is None else list_values(alignment))


def _drop_repeated(found: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """Leave out divergences without a cause on the lines of one before, as of every leaf in an optimizer."""
    kept: dict[object, Divergence] = {}
    for number, one in enumerate(found):
        lines = tuple((site.primitive, site.layer, str(site.location), str(site.user_line)) for site in one.sites)
        kept.setdefault(lines if not one.causes else number, one)
    return tuple(kept.values())


def _make_divergence(name: ProgramName, found: FoundDivergence, tables: tuple[LeafTable, LeafTable]) -> Divergence:
    scene = found.scene
    shown = found.causes[0].trial.shown if found.causes else None
    values = worst_values(scene) if shown is None else ("", "")
    causes = tuple(TriedCause(one.trial.text, round(one.left, 6), one.within) for one in found.causes)
    return Divergence(
        name,
        describe_sites(scene, tables, name == STEP, shown),
        causes,
        _count_equal(scene.left, scene.pair.reference),
        *values,
        found.left,
    )


def _count_equal(side: AlignedSide, operation: Operation | None) -> int:
    """Number of computed values before an operation that the other program has too."""
    record = side.recording
    last = len(record.operations) if operation is None else record.maker[operation.outs[0]]
    return sum(side.shared[out] for one in record.operations[:last] for out in one.outs if _is_rounded(side, one, out))


def _is_rounded(side: AlignedSide, operation: Operation, out: int) -> bool:
    """Whether a value is computed with rounding: floats of more than one element."""
    shape = side.recording.shapes[out]
    primitive = operation.primitive
    return not operation.kind and primitive not in EXACT and bool(np.prod(shape) > 1)


def list_values(alignment: Alignment) -> tuple[Intermediate, ...]:
    """List the values that the reference computes, in order, around the first that the candidate lacks for good."""
    side = alignment.reference
    rows = [
        (operation, out)
        for operation in side.recording.operations
        for out in operation.outs
        if _is_rounded(side, operation, out)
    ]
    first = next((index for index, (_, out) in enumerate(rows) if out in side.lost), 0)
    start = max(0, min(first - MAX_VALUES // 2, len(rows) - MAX_VALUES))
    return tuple(
        _make_intermediate(side, operation, out, alignment.distance(out))
        for operation, out in rows[start : start + MAX_VALUES]
    )


def _make_intermediate(side: AlignedSide, operation: Operation, out: int, ratio: float | None) -> Intermediate:
    place = operation.place
    _, user_line, stack = locate_equation(place)
    floor = 1 / rounding_growth(out + 1)
    return Intermediate(
        place[-1].primitive.name, ratio, floor, out in side.lost, strip_transforms(stack), is_backward(stack), user_line
    )


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
    for name, outputs in refuted.items():
        yield name, _explain_program(name, outputs, left, right, _choose_probes(probes), steps)


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
