"""Judge a changed candidate: every output element by element, as those of the candidate itself are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from equiv.comparison.explain.recording import Recording
from equiv.comparison.numeric.blocks import element_responses, finite_difference, measure_blocks
from equiv.comparison.numeric.budgets import limit_finite, over_budget
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import rounding_growth
from equiv.core.output_name import InputName, OutputName
from equiv.programs.probes import widen_array
from equiv.programs.program import Program
from equiv.programs.rounding_depth import rounding_depths

InputArrays = Mapping[InputName, Any]


@dataclass(frozen=True, eq=False)
class ProgramRuns:
    """What both programs are run on.

    Attributes:
        reference: the reference's program.
        candidate: the candidate's.
        names: of both ports.
        inputs: on each probe, the reference's and the candidate's.
        nudged: the same with every input moved by an ulp.
        refuted: outputs that differ.
    """

    reference: Program
    candidate: Program
    names: tuple[str, str]
    inputs: Sequence[tuple[InputArrays, InputArrays]]
    nudged: Sequence[tuple[InputArrays, InputArrays]]
    refuted: tuple[OutputName, ...]


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges the outputs of a changed candidate as those of the candidate itself are: element by element.

    Attributes:
        runs: the programs.
        ours: the reference's runs on each probe.
        moved: the reference's nudged runs.
        before: the candidate's own runs.
    """

    runs: ProgramRuns
    ours: Sequence[Recording]
    moved: Sequence[Recording]
    before: Sequence[Recording]

    @cached_property
    def shared(self) -> tuple[OutputName, ...]:
        """Outputs that both programs have, as floats of one shape."""
        first, other = self.ours[0].results, self.before[0].results
        return tuple(
            name
            for name, array in first.items()
            if name in other and other[name].shape == array.shape and str(array.dtype) in INEXACT_DTYPES
        )

    @cached_property
    def budgets(self) -> list[dict[OutputName, np.ndarray]]:
        """The budget of every element of the shared outputs, on each probe."""
        depths = rounding_depths(self.runs.reference)
        found = []
        for run, moved in zip(self.ours, self.moved, strict=True):
            own = {}
            for name in self.shared:
                array = run.results[name]
                responses = element_responses(measure_blocks(array, [moved.results[name]]), array)
                own[name] = limit_finite(rounding_growth(depths.get(name, 1)), responses)
            found.append(own)
        return found

    @cached_property
    def refuted(self) -> tuple[OutputName, ...]:
        """Refuted outputs that are over their budget in these runs."""
        asked = [name for name in self.runs.refuted if name in self.shared]
        return tuple(name for name in asked if any(self.ratio(run, at, name) > 1 for at, run in enumerate(self.before)))

    def ratio(self, run: Recording, probe: int, name: OutputName) -> float:
        """The largest error / budget of an output."""
        one, other = (widen_array(side.results[name]) for side in (self.ours[probe], run))
        difference = finite_difference(one, other)
        # A number beside NaN differs by NaN, which is above no budget: it is as far off as can be.
        difference = np.where(np.isnan(difference), np.inf, difference)
        return float(np.max(over_budget(difference, self.budgets[probe][name]), initial=0.0))

    @cached_property
    def judged(self) -> tuple[OutputName, ...]:
        """Outputs that have to be within their budgets: those refuted, and those that are within in the candidate.

        One that is not refuted and over its budget here is rounding, as the gradient of a bias that is zero in theory.
        """
        asked = set(self.runs.refuted)
        return tuple(
            name
            for name in self.shared
            if name in asked or all(self.ratio(run, at, name) <= 1 for at, run in enumerate(self.before))
        )

    def is_within(self, run: Recording, probe: int) -> bool:
        """Whether every output that has to be is within its budget."""
        return all(self.ratio(run, probe, name) <= 1 for name in self.judged)

    def left(self, run: Recording, probe: int) -> float:
        """The part of the candidate's own error that a run has: the mean over refuted outputs."""
        parts = []
        for name in self.refuted:
            one, two, three = (widen_array(side.results[name]) for side in (self.ours[probe], self.before[probe], run))
            before, after = (float(np.max(finite_difference(one, side), initial=0.0)) for side in (two, three))
            if before > 0:
                parts.append(after / before if np.isfinite(after / before) else 1e9)
        return float(np.mean(parts)) if parts else 0.0
