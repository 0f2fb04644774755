"""Compare again on a longer batch, where an axis of one element hides what runs along it, such as a recurrence.

Whether a longer batch shows more is measured first, on the reference's calls and gradients alone; only where it does is
anything compared on it. A leaf whose gradient is a sum that cancels, as that of every key's bias before a softmax, is
shown by no batch, and none is tried for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from equiv.backends.build import call_user_code
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.numeric.rounding import measure_responses, output_depths
from equiv.comparison.observation import Outputs, RoundingNoise
from equiv.comparison.sensitivity.trial_runs import BaseRun, LeafChange, TrialRuns
from equiv.comparison.stages import open_case, trace_ports
from equiv.comparison.state import STRUCTURE, CaseState, Stage, advance
from equiv.core.batch_spec import BatchEntry, flatten_batch, nest_batch, parse_batch
from equiv.core.case import Case
from equiv.core.grades import REFUSAL_GRADES
from equiv.core.results import ProbeTrial
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import lower_programs, run_executable
from equiv.programs.probes import Probe


def try_longer_batch(state: CaseState, stages: Sequence[Stage]) -> CaseState:
    """Compare on a longer batch, if its probes distinguish leaves that those of the case's own batch do not.

    Args:
        state: the case, compared on its own batch; returned unchanged where that refutes or no longer batch helps.
        stages: those of a comparison after structure.
    """
    earlier = tuple(one for one in state.checks if one.check == STRUCTURE or one.candidate not in state.candidates)
    if any(check.grade in REFUSAL_GRADES for check in state.checks if check not in earlier):
        return state
    changes, before = _unnoticed_changes(state), _unnoticed(state.trials)
    for changed, case in longer_batches(state.built_case.case) if changes else ():
        state.progress(f"trying {', '.join(changed)}")
        try:
            opened = open_case(case, state.progress)
            if not _same_leaves(state.built_case, opened.built_case) or not _shows_any(state, opened, changes):
                continue
            found = advance(replace(opened, candidates=state.candidates), stages)
        except EquivError:
            continue  # a model may be written for one shape only; the result of the own batch stands
        after = _unnoticed(found.trials)
        if after.is_less(before):
            noticed = [title for title in before.titles if title not in after.titles]
            note = f"not noticed on the case's own batch: {', '.join(noticed)}"
            trials = (*found.trials, ProbeTrial("longer batch", changed, note=note))
            return replace(state, checks=(*earlier, *found.checks), trials=trials)
    return state


def _unnoticed_changes(state: CaseState) -> tuple[LeafChange, ...]:
    """The changes that are not noticed and that a longer batch may show: all such leaves at once, and swaps of two.

    Where all is proved, no swap of two leaves that are noticed is asked for: the proof knows which is which.
    """
    zero = state.zero_gradients
    missed = [trial for trial in state.trials if not trial.detected and not zero.issuperset(trial.subject)]
    moved = tuple(trial.subject[0] for trial in missed if trial.kind == "moved")
    is_proved = bool(state.proofs) and not any(state.in_float64.values())
    tried = (trial for trial in missed if trial.kind == "swapped" and trial.ratio is not None)
    swapped = (trial.subject[:2] for trial in tried if not is_proved)
    own = (LeafChange("moved", moved),) if moved else ()
    return (*own, *(LeafChange("swapped", pair) for pair in swapped))


def _shows_any(state: CaseState, opened: CaseState, changes: Sequence[LeafChange]) -> bool:
    """Whether calls or gradients of the reference show a change on a longer batch.

    Args:
        state: the case on its own batch.
        opened: the case on the longer one.
        changes: those that are not noticed on its own batch.

    Raises:
        EquivError: the reference cannot be traced, compiled or run with this batch.
    """
    assert state.observed is not None, "its own batch was run"
    traced = trace_ports(replace(opened, candidates=())).traced[opened.reference]
    programs = replace(traced.programs, begin=None, step=None)
    given, steps, factor = state.observed.probes[0], opened.built_case.case.steps, opened.built_case.case.budget_factor
    probe = replace(make_probes(opened.built_case, traced.table)[0], variables=given.variables)

    def compile_and_run() -> bool:
        executable = lower_programs(programs, traced.table, steps, probe, quick=True)()

        def run(one: Probe) -> Outputs:
            return run_executable(executable, one)

        outputs = run(probe)
        responses = measure_responses(run, {probe.name: outputs}, [probe], in_float64=False)
        noise = RoundingNoise(responses, {}, output_depths(programs, steps))
        runs = TrialRuns((BaseRun(executable, probe, outputs, noise, factor),), left=len(changes))
        return any(shown.noticed for shown in runs.try_changes(changes).values())

    return call_user_code(opened.reference, "running on a longer batch", compile_and_run)


def longer_batches(case: Case) -> Iterator[tuple[tuple[str, ...], Case]]:
    """Yield cases with one axis of the batch longer, shortest axes first, each with the entries that change."""
    batch = case.inputs
    entries = parse_batch(batch)
    rank = max((entry.axes for entry in entries.values()), default=0)
    axes = {
        (entry.spec.shape[axis], axis) for axis in range(rank) for entry in entries.values() if _has_axis(entry, axis)
    }
    for size, axis in sorted(axes):
        longer = {
            name: _longer_entry(entry, axis)
            for name, entry in entries.items()
            if _has_axis(entry, axis) and entry.spec.shape[axis] == size
        }
        if any(entries[name].kept is not None for name in longer):
            continue  # of other sizes there are no values
        before = flatten_batch(batch)
        changed = nest_batch(batch, lambda name, longer=longer, before=before: longer.get(name, before[name]))
        yield tuple(f"{name} to {text}" for name, text in longer.items()), replace(case, batch=changed)


def _has_axis(entry: BatchEntry, axis: int) -> bool:
    return entry.axes > axis


def _longer_entry(entry: BatchEntry, axis: int) -> str:
    """Give a batch entry with axis size n changed to 2 n + 1, so that no two axes share a length by accident."""
    sizes = tuple(2 * size + 1 if index == axis else size for index, size in enumerate(entry.spec.shape))
    return str(replace(entry, spec=replace(entry.spec, shape=sizes)))


@dataclass(frozen=True)
class _Unnoticed:
    """What the probes of a batch do not notice.

    Attributes:
        titles: of the trials.
        leaves: those of which no change is noticed.
        pairs: number of pairs of which no swap is.
    """

    titles: tuple[str, ...]
    leaves: frozenset[str]
    pairs: int

    def is_less(self, other: "_Unnoticed") -> bool:
        """Whether nothing else is unnoticed, and not as much."""
        within = self.leaves <= other.leaves and self.pairs <= other.pairs
        return within and (self.leaves, self.pairs) != (other.leaves, other.pairs)


def _unnoticed(trials: Sequence[ProbeTrial]) -> _Unnoticed:
    missed = [trial for trial in trials if trial.kind in ("moved", "swapped") and not trial.detected]
    leaves = frozenset(trial.subject[0] for trial in missed if trial.kind == "moved")
    pairs = sum(trial.pairs for trial in missed if trial.kind == "swapped")
    return _Unnoticed(tuple(trial.title for trial in missed), leaves, pairs)


def _same_leaves(one: BuiltCase, other: BuiltCase) -> bool:
    """Whether every port has the same leaves; a longer axis of features changes them."""
    return {name: [leaf.spec for leaf in built.table.leaves] for name, built in one.built.items()} == {
        name: [leaf.spec for leaf in built.table.leaves] for name, built in other.built.items()
    }
