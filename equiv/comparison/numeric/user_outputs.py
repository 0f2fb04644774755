"""Outputs of a port as its user runs it, compared with what its programs mean, part by part as both are computed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from equiv.comparison.numeric.difference import compare_output, worst_finding
from equiv.comparison.numeric.fold import FoldedRun, fold_comparison
from equiv.comparison.numeric.held_outputs import Stream, keep_outputs
from equiv.comparison.numeric.run_port import CompiledPort, Hold, only_hold, stream_user_code
from equiv.comparison.observation import Comparison, Outputs, RoundingNoise, Sample
from equiv.core.output_name import STEP, TRAINING, InputName, OutputName, ProgramName
from equiv.core.results import Finding
from equiv.programs.compiled import NamedOutputs, join_parts, stream_with_draws
from equiv.programs.exercise import Observed
from equiv.programs.probes import Probe
from equiv.programs.user_calls import CompiledCalls, derive_bits

Given = dict[tuple[ProgramName, int], Mapping[InputName, object]]
"""Program and number of the call to its key and random state."""


@dataclass(frozen=True, eq=False)
class UserOutputs:
    """One port on one probe as its user runs it, next to what its programs mean.

    Attributes:
        probe: its name.
        meaning: the outputs of the executable that equiv compares, with the draws of the user's keys.
        observed: those of the programs as users call and compile them.
        run: of what users run, where it was compared with the other as it was held; None: it was not.
    """

    probe: str
    meaning: Outputs
    observed: Outputs
    run: FoldedRun | None = None


@dataclass(frozen=True)
class UserRounding:
    """What a port may round as its user runs it.

    Attributes:
        noise: the response to rounding.
        own: how far the port moves when each of its operations rounds otherwise; None: nothing needs it.
    """

    noise: RoundingNoise
    own: RoundingNoise | None = None


def run_calls(described: Comparison, compiled: CompiledPort, calls: CompiledCalls, probe: Probe) -> UserOutputs:
    """Run what users run, and the executable that is compared, on the same keys and draws.

    Args:
        described: the port as both sides, without outputs, and its rounding.
        compiled: the port as equiv compares it. Where its training is run step by step, so is this.
        calls: its programs as users call them.
        probe: the probe.
    """
    keyed = {one.program.name: one for one in compiled.traced.keyed}
    returned = frozenset(_list_outputs(compiled))
    if not any(keyed[call.name].draws for call, _ in calls):
        # No key of the user is needed: what is meant runs first, and what users run is compared with it as it is held.
        meaning = _collect(compiled, partial(_select_outputs, compiled, probe, {}, returned))
        users = partial(stream_calls, calls, probe, returned, {})
        observed, run = _collect_beside(described, probe.name, meaning, compiled, users)
        return UserOutputs(probe.name, keep_outputs(meaning, observed), observed, run)
    given: Given = {}
    observed = _collect(compiled, partial(stream_calls, calls, probe, returned, given))
    draws: dict[ProgramName, list[np.ndarray]] = {}
    for call, _ in calls:
        bits = derive_bits(keyed[call.name], [one for (name, _), one in given.items() if name == call.name])
        draws[call.name] = [np.stack(one) for one in zip(*bits, strict=True)] if call.name == STEP else bits[0]
    meaning = partial(_select_outputs, compiled, probe, draws, frozenset(observed))
    return UserOutputs(probe.name, _collect(compiled, meaning), observed)


def run_changed(
    described: Comparison,
    compiled: CompiledPort,
    calls: CompiledCalls,
    probe: Probe,
    known: UserOutputs,
    against: Outputs,
) -> UserOutputs:
    """Run some of the calls again, in another way, next to outputs that are known.

    Args:
        described: as of `run_calls`.
        compiled: the port.
        calls: the calls, each with what computes it now.
        probe: what they are run on.
        known: the port on the probe as it is.
        against: one of its two outputs.
    """
    stream = partial(stream_calls, calls, probe, frozenset(known.meaning), {})
    observed, run = _collect_beside(described, known.probe, against, compiled, stream)
    return UserOutputs(known.probe, against, observed, run)


def _list_outputs(compiled: CompiledPort) -> Iterator[OutputName]:
    """The outputs of what equiv compares: what a call does not change is no output of it."""
    programs = compiled.native.programs
    for part in programs.parts:
        yield from part.outputs
    if programs.step is not None:
        yield from (name.of(TRAINING) for name in programs.step.outputs)


def _collect(compiled: CompiledPort, stream: Stream, hold: Hold = only_hold) -> Outputs:
    """The outputs of a run: arrays, or, where those of training are large, what is asked of all."""

    def run() -> Iterator[tuple[NamedOutputs, Observed]]:
        return stream_user_code(compiled.traced.port.name, "running as users do", stream())

    if compiled.native.training is not None:
        return hold(run, False)[0]
    return join_parts([outputs for outputs, _ in run()])


def _collect_beside(
    described: Comparison, probe: str, other: Outputs, compiled: CompiledPort, stream: Stream
) -> tuple[Outputs, FoldedRun]:
    """The outputs of a run, compared with those of the other one as they are held."""
    side = replace(described.reference, samples={probe: Sample(other, None)})
    run = FoldedRun(replace(described, reference=side), probe)
    return _collect(compiled, stream, run.hold), run


def stream_calls(
    calls: CompiledCalls, probe: Probe, returned: frozenset[OutputName], given: Given
) -> Iterator[tuple[NamedOutputs, Observed]]:
    """Yield the outputs of all calls as one part, then those of each train step.

    Args:
        calls: the calls, each with what computes it.
        probe: what they are run on.
        returned: the outputs that are wanted.
        given: gets the keys and random state of every call.
    """
    first: dict[OutputName, np.ndarray] = {}
    for call, function in calls:
        if call.name == STEP:
            continue
        for results in call.stream(function, probe):
            given[call.name, 0] = results.given
            first |= results.outputs
    yield {name: array for name, array in first.items() if name in returned}, {}
    del first
    for call, function in calls:
        if call.name != STEP:
            continue
        for number, results in enumerate(call.stream(function, probe)):
            given[STEP, number] = results.given
            outputs = {name: array for name, array in results.outputs.items() if name in returned}
            del results
            yield outputs, {}
            del outputs


def _select_outputs(
    compiled: CompiledPort, probe: Probe, draws: Mapping[ProgramName, list[np.ndarray]], wanted: frozenset[OutputName]
) -> Iterator[tuple[NamedOutputs, Observed]]:
    for outputs, _ in stream_with_draws(compiled.native, probe, draws):
        selected = {name: array for name, array in outputs.items() if name in wanted}
        del outputs
        yield selected, {}
        del selected


def compare_user_outputs(described: Comparison, runs: Iterable[UserOutputs]) -> dict[OutputName, Finding]:
    """Compare every output as the user runs it with what it means, and keep nothing but findings.

    Args:
        described: the port as both sides, without outputs, and its rounding.
        runs: of every probe, one after the other.

    Returns:
        Output to the worst finding of all probes; equal values that are all zero are equal.
    """
    found: dict[OutputName, list[Finding]] = {}
    for run in runs:
        meaning, observed = (
            replace(described.reference, samples={run.probe: Sample(one, None)}) for one in (run.meaning, run.observed)
        )
        folds = {} if run.run is None else {run.probe: run.run}
        compared = fold_comparison(replace(described, reference=meaning, candidate=observed), folds)
        for name in run.observed:
            found.setdefault(name, []).append(compare_output(compared, name))
        del run, meaning, observed, compared, folds  # before the next probe is run
    return {name: _equal_without_numbers(worst_finding(name, one)) for name, one in found.items()}


def _equal_without_numbers(finding: Finding) -> Finding:
    is_equal = finding.grade == "vacuous" or (finding.grade == "error" and finding.error is None)
    return replace(finding, grade="exact", note="") if is_equal else finding
