"""Run the reference with changed leaves: what shows the change, and by how many times its budget. Runs are counted."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, islice
from typing import Literal

import numpy as np

from equiv.comparison.numeric.blocks import count_nonfinite_values, element_responses, finite_difference
from equiv.comparison.numeric.budgets import BudgetRule, find_responses, limit_finite, over_budget
from equiv.comparison.numeric.held_outputs import HeldOutputs, drop_observed, largest_value, run_in_step
from equiv.comparison.numeric.worst_on_device import DeviceRule, find_worst_element, make_device_rule
from equiv.comparison.observation import Outputs, RoundingNoise
from equiv.core.batch_spec import FLOAT_DTYPES, INEXACT_DTYPES
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.output_name import OutputName, ProgramName
from equiv.programs.compiled import (
    COMPILED_EQUATIONS,
    Executable,
    by_operation,
    count_all_equations,
    run_executable,
    stream_outputs,
)
from equiv.programs.probes import NamedArrays, Probe, ulp, widen_array
from equiv.programs.streamed import stream_each_output

MOST_KEPT = 2**16
"""Number of elements up to which budgets are kept: those of every train step of a large model would not fit. Of larger
outputs so many elements are compared at a time, whose budgets and differences stay in the processor's cache."""


@dataclass(frozen=True)
class BaseRun:
    """The reference on one probe as it is, in one precision.

    Attributes:
        executable: its programs.
        probe: the probe.
        outputs: what it gives.
        noise: how rounding moves it.
        factor: the case's `budget_factor`.
        one_by_one: whether a changed run gives its outputs one by one, as they are computed, and holds none.
        known: budgets that were asked for, of small outputs.
        largest: the largest finite magnitudes that were asked for.
        rules: what gives the budgets of large outputs that were compared.
    """

    executable: Executable
    probe: Probe
    outputs: Outputs
    noise: RoundingNoise
    factor: float
    one_by_one: bool = False
    known: dict[OutputName, np.ndarray] = field(default_factory=dict, repr=False)
    largest: dict[OutputName, float] = field(default_factory=dict, repr=False)
    rules: dict[OutputName, DeviceRule] = field(default_factory=dict, repr=False)

    @property
    def in_float64(self) -> bool:
        """Whether the run is in float64."""
        return self.executable.programs.float64

    @property
    def has_gradients(self) -> bool:
        """Whether any program of it returns gradients."""
        return any(name.kind == "gradient" for name in self.outputs)

    @cached_property
    def calls_alone(self) -> "BaseRun | None":
        """The calls without gradients and training, operation by operation; None: the whole run is small.

        Most changes show in a call already. Where there are as many as layers, whole runs grow as the square of the
        depth; of a decoder of 48 layers, calls have a tenth of the equations, and train steps repeat the others.
        """
        programs = self.executable.programs
        # One by one, the outputs of calls come first, and no gradient is computed where they show a change.
        if self.one_by_one or count_all_equations(programs) <= COMPILED_EQUATIONS:
            return None
        calls = tuple(part for part in programs.parts if part.name.is_forward)
        alone = replace(programs, parts=calls, begin=None, step=None)
        executable = by_operation(alone, self.executable.table, self.executable.steps)
        outputs = run_executable(executable, self.probe)
        return BaseRun(executable, self.probe, outputs, self.noise, self.factor)

    @cached_property
    def calls(self) -> Outputs:
        """The outputs of calls and gradients; with those of training, where they are not large."""
        if not isinstance(self.outputs, HeldOutputs):
            return self.outputs
        return next(part for part, _ in self.outputs.stream())

    def parts(self) -> Iterator[Outputs]:
        """The outputs in parts: calls and gradients, then each train step; all are one part where training is small."""
        yield self.calls
        if isinstance(self.outputs, HeldOutputs):
            yield from drop_observed(islice(self.outputs.stream(), 1, None))

    def array(self, name: OutputName) -> np.ndarray:
        """The value of an output; that of a gradient needs no train step."""
        return self.calls[name] if name in self.calls else self.outputs[name]

    def budgets(self, name: OutputName, part: np.ndarray | None = None) -> np.ndarray:
        """The budget of every element of an output, as `numeric.budgets` has it; 0 for whole numbers.

        Args:
            name: of the output.
            part: some elements of it, of which the budgets are asked; None: all.
        """
        if part is None and name in self.known:
            return self.known[name]
        array = self.array(name) if part is None else part
        found = np.zeros(array.shape)
        if str(array.dtype) in INEXACT_DTYPES:
            responses = find_responses(self.noise, self.probe.name, name, self.in_float64)
            largest = self._largest_value(name)
            found = limit_finite(self.growth(name), element_responses(responses, array, largest))
            if name.kind == "gradient":
                whole = rounding_response(responses.largest, ulp(array.dtype), largest)
                found = np.maximum(found, min(self.zero_level(name), self.growth(name) * whole))
        if part is None and found.size <= MOST_KEPT:
            self.known[name] = found
        return found

    def rule(self, name: OutputName, dtype: np.dtype) -> DeviceRule:
        """What gives the budgets of a float output, for compiled code."""
        if name not in self.rules:
            responses = find_responses(self.noise, self.probe.name, name, self.in_float64)
            zero = self.zero_level(name) if name.kind == "gradient" else 0.0
            rule = BudgetRule(responses, self._largest_value(name), self.growth(name), zero)
            self.rules[name] = make_device_rule(rule, dtype)
        return self.rules[name]

    def _largest_value(self, name: OutputName) -> float:
        if name not in self.largest:
            self.largest[name] = largest_value(self.outputs, name)
        return self.largest[name]

    @cached_property
    def _gradient_scales(self) -> Mapping[ProgramName, float]:
        """The largest gradient of each program."""
        scales: dict[ProgramName, float] = {}
        for name in self.outputs:  # no other array is looked at: those of train steps are large
            if name.kind == "gradient":
                scales[name.program] = max(scales.get(name.program, 0.0), self._largest_value(name))
        return scales

    def zero_level(self, name: OutputName) -> float:
        """The size up to which a gradient is zero in theory, as `numeric.budgets` has it."""
        return self._gradient_scales[name.program] * ulp(self.calls[name].dtype) * self.growth(name)

    def growth(self, name: OutputName) -> float:
        """How many times the response of an output its budget is."""
        return rounding_growth(self.noise.depth.get(name, 1), self.factor)


@dataclass(frozen=True)
class LeafChange:
    """A change of some leaves of the probe.

    Attributes:
        kind: `moved`: each has other values; `swapped`: each has the values of the next, and the last those of the
            first.
        leaves: their names; of two that are swapped, both.
    """

    kind: Literal["moved", "swapped"]
    leaves: tuple[str, ...]

    @property
    def _next(self) -> dict[str, str]:
        if self.kind == "moved":
            return {}
        return dict(zip(self.leaves, (*self.leaves[1:], self.leaves[0]), strict=True))

    def apply(self, probe: Probe) -> Probe:
        """The probe with this change."""
        given = probe.variables
        if self.kind == "moved":
            return with_variables(
                probe, {leaf: move_leaf(given[leaf], index) for index, leaf in enumerate(self.leaves)}
            )
        return with_variables(probe, {place: given[leaf] for leaf, place in self._next.items()})

    def output_name(self, name: OutputName) -> OutputName | None:
        """The output to be compared with an output of the unchanged probe; None: it says nothing of the change.

        A port that swaps two leaves swaps them in its outputs, too. The trained value of a moved leaf does not count:
        it changes even if the model does not use the leaf.
        """
        if self.kind == "moved":
            return None if name.kind == "leaf" and name.leaf in self.leaves else name
        return replace(name, leaf=self._next.get(name.leaf, name.leaf))


@dataclass(frozen=True)
class Shown:
    """What shows a change best.

    Attributes:
        output: the output that changes most, in budgets, of the first kind of program that shows it; empty where none
            changes.
        ratio: that change over its budget; infinite where the budget is 0.
    """

    output: str = ""
    ratio: float = 0.0

    @property
    def noticed(self) -> bool:
        """Whether it is more than rounding explains."""
        return self.ratio > 1


NOTHING = Shown()
"""Of a change that no output shows."""


@dataclass
class TrialRuns:
    """Runs of the reference with changed leaves: no more than there are leaves.

    Attributes:
        bases: the reference on the unchanged probe, natively and, where that decides, in float64.
        left: number of runs that may still be made.
        made: number of those that were made.
    """

    bases: tuple[BaseRun, ...]
    left: int
    made: int = field(default=0, init=False)

    @property
    def probe(self) -> Probe:
        """The unchanged probe."""
        return self.bases[0].probe

    def stream(self, base: BaseRun, probe: Probe) -> Iterator[tuple[OutputName, np.ndarray]]:
        """Run on another probe: each output of calls and gradients; of training, where the steps are not large."""
        if not base.one_by_one:
            return iter(next(self._start(base, probe)).items())
        self.left -= 1
        self.made += 1
        return stream_each_output(base.executable, probe)

    def _start(self, base: BaseRun, probe: Probe) -> Iterator[Outputs]:
        """Run on another probe, part by part as they are asked for: see `BaseRun.parts`."""
        self.left -= 1
        self.made += 1
        return drop_observed(stream_outputs(base.executable, probe))

    def try_changes(self, changes: Sequence[LeafChange], in_calls: bool = False) -> dict[LeafChange, Shown]:
        """Try changes in one precision, and what is not noticed then in the other, while there are runs left.

        Natively first, but where the float64 run gives its outputs one by one: that ends with the first that shows the
        change, without a train step, where a native run in bfloat16 looks blind and makes them all.

        Args:
            changes: the changes.
            in_calls: look at calls and gradients alone where train steps are large, which cost most of a run.

        Returns:
            Change to what shows it; a change that was not run is missing.
        """
        found: dict[LeafChange, Shown] = {}
        for base in sorted(self.bases, key=lambda one: not one.one_by_one):
            # It costs a run more of each that it does not show: then there must be runs for both.
            alone = base.calls_alone if 2 <= len(changes) <= self.left // 2 else None
            for change in changes:
                before = found.get(change, NOTHING)
                if self.left > 0 and not before.noticed:
                    now = NOTHING if alone is None else self._compare(alone, change, in_calls)
                    if not now.noticed and self.left > 0:
                        now = self._compare(base, change, in_calls)
                    found[change] = max(before, now, key=lambda one: one.ratio)
        return found

    def _compare(self, base: BaseRun, change: LeafChange, in_calls: bool) -> Shown:
        if base.one_by_one:
            return compare_one_by_one(base, change, self.stream(base, change.apply(base.probe)))
        parts = self._start(base, change.apply(base.probe))
        return compare_change(base, change, islice(parts, 1) if in_calls else parts)


def compare_change(base: BaseRun, change: LeafChange, changed: Iterable[Outputs]) -> Shown:
    """Find the output that shows a change best, of the first kind of program that shows it.

    Programs are taken from calls to training: what a call shows already needs no look at the parameters and
    moments of every train step, which are most of what a large model gives, and no step is made.

    Args:
        base: the run without the change.
        change: the change.
        changed: the parts of the run with it, as `BaseRun.parts` has them.
    """
    best = NOTHING
    for number, together in enumerate(run_in_step([changed, base.parts()])):
        after, before = together
        del together[:]
        for _, names in groupby(sorted(before, key=_complexity), key=_complexity):
            for name in names:
                other = change.output_name(name)
                if other is None or other not in after:
                    continue
                ratio = _change_over_budget(base, name, before[name], after[other])
                if ratio > best.ratio:
                    best = Shown(str(name), ratio)
            if best.noticed and number == 0:  # later parts are train steps, of which the worst counts
                return best
        del after, before  # before the next part is computed
    return best


def compare_one_by_one(base: BaseRun, change: LeafChange, changed: Iterable[tuple[OutputName, np.ndarray]]) -> Shown:
    """Find the same as `compare_change` where the outputs of the changed run come one by one, simple programs first.

    Args:
        base: the run without the change, whose outputs are arrays.
        change: the change.
        changed: the outputs of the run with it.
    """
    names: dict[OutputName, list[OutputName]] = {}
    for name in base.outputs:
        other = change.output_name(name)
        if other is not None:
            names.setdefault(other, []).append(name)
    best, complexity = NOTHING, 0
    for other, after in changed:
        if best.noticed and _complexity(other) > complexity:
            break
        complexity = _complexity(other)
        for name in names.get(other, ()):
            ratio = _change_over_budget(base, name, base.outputs[name], after)
            if ratio > best.ratio:
                best = Shown(str(name), ratio)
        del after  # before the next one is computed
    return best


def _complexity(name: OutputName) -> int:
    return name.program.complexity


def _change_over_budget(base: BaseRun, name: OutputName, before: np.ndarray, after: np.ndarray) -> float:
    """Compute the largest change of an output over its budget; infinite where a budget is zero or the change NaN.

    Args:
        base: the run without the change.
        name: of the output.
        before: its value there, or a part of it.
        after: that with the change.
    """
    if before.size <= MOST_KEPT and before is base.calls.get(name):
        return _worst_ratio(before, after, base.budgets(name))
    if str(before.dtype) in FLOAT_DTYPES and not count_nonfinite_values(before) + count_nonfinite_values(after):
        worst = find_worst_element((before, after), base.rule(name, before.dtype))
        if worst is not None:
            return worst.ratio
    flat, moved = before.reshape(-1), after.reshape(-1)
    pieces = (slice(start, start + MOST_KEPT) for start in range(0, flat.size, MOST_KEPT))
    return max((_worst_ratio(flat[one], moved[one], base.budgets(name, flat[one])) for one in pieces), default=0.0)


def _worst_ratio(before: np.ndarray, after: np.ndarray, budgets: np.ndarray) -> float:
    difference = finite_difference(widen_array(before), widen_array(after))
    worst = np.max(over_budget(np.where(np.isnan(difference), np.inf, difference), budgets), initial=0.0)
    return float(worst)


def with_variables(probe: Probe, changed: NamedArrays) -> Probe:
    """The probe with other values of some leaves."""
    return replace(probe, variables={**probe.variables, **changed})


def move_leaf(array: np.ndarray, number: int = 0) -> np.ndarray:
    """Change every element of a leaf by another factor: a normalisation would hide a common one.

    Args:
        array: the leaf.
        number: of the leaf among those that are moved together, so that no two are moved by the same factors.
    """
    if str(array.dtype) not in INEXACT_DTYPES:
        return (array + 1).astype(array.dtype)
    turned = np.roll(np.linspace(1.25, 1.75, num=array.size), number).reshape(array.shape)
    added = 0.125 + 0.125j if array.dtype.kind == "c" else 0.125
    return (array * turned + added / (1 + number)).astype(array.dtype)


def finite_ratio(ratio: float) -> float | None:
    """A ratio as results have it; None where the budget is 0."""
    return ratio if math.isfinite(ratio) else None
