"""Lower the rate of the default train step where training blows up with it: its noise would hide any difference."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from equiv.backends.build import DefaultSgd
from equiv.comparison.numeric.step_moves import moved_parameters, relative_moves
from equiv.comparison.observation import Sample
from equiv.comparison.stages import open_case
from equiv.comparison.state import STRUCTURE, CaseState, Reference, Stage, advance
from equiv.core.leaves import LeafTable
from equiv.core.output_name import trained_leaf
from equiv.programs.probes import Probe, ulp


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
    earlier = tuple(one for one in state.checks if one.check == STRUCTURE or one.candidate not in state.candidates)
    again = replace(opened, candidates=state.candidates, checks=earlier, probes=state.probes, seeds=state.seeds)
    lowered = replace(advance(replace(again, before=state), stages), before=None)
    return lower_default_rate(lowered, stages)


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
