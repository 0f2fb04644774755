"""Compare again on a longer batch, where an axis of one element hides what runs along it, such as a recurrence."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from equiv.comparison.stages import open_case
from equiv.comparison.state import STRUCTURE, CaseState, Stage, advance
from equiv.core.batch_spec import BatchEntry, parse_batch
from equiv.core.case import Case
from equiv.core.grades import REFUSAL_GRADES
from equiv.core.results import ProbeTrial
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase


def try_longer_batch(state: CaseState, stages: Sequence[Stage]) -> CaseState:
    """Compare on a longer batch, if its probes distinguish leaves that those of the case's own batch do not.

    Args:
        state: the case, compared on its own batch; returned unchanged where that refutes or no longer batch helps.
        stages: those of a comparison after structure.
    """
    earlier = tuple(one for one in state.checks if one.check == STRUCTURE or one.candidate not in state.candidates)
    if any(check.grade in REFUSAL_GRADES for check in state.checks if check not in earlier):
        return state
    blind = _unnoticed_trials(state.trials)
    for changed, case in longer_batches(state.built_case.case) if blind else ():
        state.progress(f"trying {', '.join(changed)}")
        try:
            opened = open_case(case, state.progress)
            if not _same_leaves(state.built_case, opened.built_case):
                continue
            found = advance(replace(opened, candidates=state.candidates), stages)
        except EquivError:
            continue  # a model may be written for one shape only; the result of the own batch stands
        if _unnoticed_trials(found.trials) < blind:
            note = f"not noticed on the case's own batch: {', '.join(sorted(blind - _unnoticed_trials(found.trials)))}"
            trials = (*found.trials, ProbeTrial("longer batch", changed, note=note))
            return replace(state, checks=(*earlier, *found.checks), trials=trials)
    return state


def longer_batches(case: Case) -> Iterator[tuple[tuple[str, ...], Case]]:
    """Yield cases with one axis of the batch longer, shortest axes first, each with the entries that change."""
    entries = parse_batch(case.batch)
    rank = max((len(entry.spec.shape) for entry in entries.values()), default=0)
    axes = {
        (entry.spec.shape[axis], axis) for axis in range(rank) for entry in entries.values() if _has_axis(entry, axis)
    }
    for size, axis in sorted(axes):
        batch = dict(case.batch)
        for name, entry in entries.items():
            if _has_axis(entry, axis) and entry.spec.shape[axis] == size:
                batch[name] = _longer_entry(entry.spec.dtype, entry.spec.shape, axis, case.batch[name])
        changed = tuple(f"{name} to {text}" for name, text in batch.items() if text != case.batch[name])
        yield changed, replace(case, batch=batch)


def _has_axis(entry: BatchEntry, axis: int) -> bool:
    return len(entry.spec.shape) > axis


def _longer_entry(dtype: str, shape: Sequence[int], axis: int, before: str) -> str:
    """Give a batch entry with axis size n changed to 2 n + 1, so that no two axes share a length by accident."""
    sizes = [2 * size + 1 if index == axis else size for index, size in enumerate(shape)]
    bound = before.strip().partition("]")[2]
    return f"{dtype}[{','.join(map(str, sizes))}]{bound}"


def _unnoticed_trials(trials: Sequence[ProbeTrial]) -> frozenset[str]:
    return frozenset(trial.title for trial in trials if trial.kind in ("moved", "swapped") and not trial.detected)


def _same_leaves(one: BuiltCase, other: BuiltCase) -> bool:
    """Whether every port has the same leaves; a longer axis of features changes them."""
    return {name: [leaf.spec for leaf in built.table.leaves] for name, built in one.built.items()} == {
        name: [leaf.spec for leaf in built.table.leaves] for name, built in other.built.items()
    }
