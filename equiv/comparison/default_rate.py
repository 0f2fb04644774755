"""Lower the rate of the default train step where training blows up with it: its noise would hide any difference."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from equiv.backends.build import DefaultSgd, call_user_code
from equiv.comparison.numeric.run_port import stream_user_code
from equiv.comparison.numeric.step_moves import StepMoves, moved_parameters, relative_moves
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS, Sample
from equiv.comparison.stages import open_case
from equiv.comparison.state import STRUCTURE, CaseState, Reference, Stage, advance
from equiv.core.leaves import LeafTable
from equiv.core.output_name import trained_leaf
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import is_large_training, lower_programs, stream_outputs
from equiv.programs.probes import Probe, ulp
from equiv.programs.traced_port import trace_other_step


def lower_default_rate(state: CaseState, stages: Sequence[Stage]) -> CaseState:
    """Train with a lower default rate if training blows up; returned unchanged where it does not, or with other steps.

    Args:
        state: the case, its reference run.
        stages: those up to the outputs of the reference, which are gone through again.
    """
    case, reference = state.built_case.case, state.observed
    optimizer = case.optimizer or DefaultSgd()
    if reference is None or reference.observed.train_step == "own" or not isinstance(optimizer, DefaultSgd):
        return state
    rate = bearable_rate(optimizer.rate, reference)
    if rate == optimizer.rate:
        return state
    state.progress(f"training blows up with {optimizer}: trying the rate {rate:g}")
    opened = open_case(replace(case, optimizer=DefaultSgd(rate)), state.progress)
    while (lower := try_rate(state, opened.built_case, rate)) != rate:
        rate, opened = lower, open_case(replace(case, optimizer=DefaultSgd(lower)), state.progress)
    earlier = tuple(one for one in state.checks if one.check == STRUCTURE or one.candidate not in state.candidates)
    again = replace(opened, candidates=state.candidates, checks=earlier, probes=state.probes, seeds=state.seeds)
    lowered = replace(advance(replace(again, before=state), stages), before=None)
    return lower_default_rate(lowered, stages)


def try_rate(state: CaseState, lowered: BuiltCase, rate: float) -> float:
    """The rate to go on with: lower than a rate with which large training blows up, too, which is seen by itself.

    All else that a rate changes takes several times as long. The rate is not the last word: it is tried as a whole.

    Args:
        state: the case with the rate that blows up, its reference run.
        lowered: the case with the rate that is tried.
        rate: that one.
    """
    reference, before = state.observed, state.traced[state.reference]
    if reference is None or not is_large_training(before.programs):
        return rate
    traced = trace_other_step(lowered, before)
    programs, steps = replace(traced.programs, parts=()), lowered.case.steps
    lower = partial(lower_programs, programs, traced.table, steps, reference.probes[0], quick=True)
    executable = call_user_code(state.reference, "compiling", lambda: lower()())
    samples: dict[str, Sample] = {}
    for probe in (one for one in reference.probes if one.name != LARGE_INPUTS):
        moves = StepMoves(moved_parameters(traced.table, probe))
        own = traced.fresh if probe.name == FRESH_STATE else {}
        for outputs, _ in stream_user_code(state.reference, "running", stream_outputs(executable, probe, own)):
            moves.look(outputs)
        samples[probe.name] = Sample({}, None, moves=moves.moves)
    probes = tuple(probe for probe in reference.probes if probe.name in samples)
    observed = replace(reference.observed, samples=samples)
    return bearable_rate(rate, replace(reference, observed=observed, probes=probes))


def bearable_rate(rate: float, reference: Reference) -> float:
    """The rate with which no step moves a parameter by more than its own size, as a power of ten of this rate.

    Of the first step this is known exactly, as gradient descent moves by the rate times the gradient. What follows is
    tried. The same rate where no rate helps: the gradient is not finite, or its steps would vanish in rounding.

    Args:
        rate: with which the reference was trained.
        reference: its outputs on its probes.
    """
    table, samples = reference.observed.table, reference.observed.samples
    moves = [found for probe in reference.probes for found in _relative_moves(table, probe, samples[probe.name])]
    largest = max((float(np.max(steps)) for steps in moves), default=0.0)
    first = max((float(steps[0]) for steps in moves), default=0.0)
    if largest <= 1 or not np.isfinite(first):
        return rate
    lower = rate / 10.0 ** max(1, int(np.ceil(np.log10(first))) if first > 0 else 1)
    return lower if lower > ulp(np.dtype("float32")) else rate


def _relative_moves(table: LeafTable, probe: Probe, sample: Sample) -> Iterator[np.ndarray]:
    """Yield how far each step moves each parameter, over its norm in the probe; infinite where it is not finite."""
    for leaf, before in moved_parameters(table, probe).items():
        if leaf in sample.moves:
            yield sample.moves[leaf]
        elif trained_leaf(leaf) in sample.native:
            yield relative_moves(before, sample.native[trained_leaf(leaf)])
