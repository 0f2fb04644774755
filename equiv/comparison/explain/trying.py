"""Try the causes of some places on the candidate's program, the likeliest first, until some explain everything."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from equiv.comparison.explain.alignment import SideRuns
from equiv.comparison.explain.causes import TRIED_CAUSES
from equiv.comparison.explain.causes.trial import Scene, Trial
from equiv.comparison.explain.judge import Judge, ProgramRuns
from equiv.comparison.explain.recording import Changes, record_program
from equiv.errors import EquivError

MAX_TRIALS = 64
"""Most causes that are tried at one divergence."""

MAX_OF_RANK = 20
"""Most of them of one rank: many similar leaves near a place must not keep all else from being tried."""

MAX_WORK = 100_000
"""Most operations that are run for all of these, but for the likeliest causes."""

MAX_SAME = 3
"""Most causes that are listed where several explain the same."""

FAILURES = (
    TypeError, ValueError, IndexError, KeyError, NotImplementedError, AssertionError, ArithmeticError, EquivError
)  # fmt: skip
"""What a change that does not fit a program raises."""

ChangesOf = Callable[[int], Changes]
"""Number of a probe to the changes of the candidate's program on it."""


def unchanged(_: int) -> Changes:
    """No changes, on any probe."""
    return Changes()


@dataclass(frozen=True, eq=False)
class TrialResult:
    """A cause that was tried.

    Attributes:
        trial: the cause.
        left: the part of the error that it leaves, of what there was before.
        within: whether every output is within its budget then.
    """

    trial: Trial
    left: float
    within: bool


@dataclass(frozen=True, eq=False)
class Search:
    """What does not change while divergences of a program are looked for.

    Attributes:
        runs: the programs and what they are run on.
        judge: judges the outputs of a changed candidate.
        reference: the runs of the reference.
        ends: processor time at which it ends with what is known.
        base: changes of the candidate's program that are made from the first run on.
        texts: of the causes that are tried; empty: all.
    """

    runs: ProgramRuns
    judge: Judge
    reference: SideRuns
    ends: float
    base: ChangesOf = unchanged
    texts: frozenset[str] = frozenset()

    @property
    def is_over(self) -> bool:
        """Whether no more may be tried."""
        return time.process_time() > self.ends


def join_changes(changes: ChangesOf, more: ChangesOf) -> ChangesOf:
    """Both changes, on every probe."""
    return lambda probe: changes(probe).join(more(probe))


def try_causes(
    search: Search, scenes: Sequence[Scene], changes: ChangesOf, error: float
) -> list[tuple[Scene, TrialResult]]:
    """Try the causes of some places, the likeliest first, until some explain everything."""
    trials = [(scene, trial) for scene in scenes for kind in TRIED_CAUSES for trial in _collect(kind, scene)]
    trials = [pair for pair in trials if not search.texts or pair[1].text in search.texts]
    trials.sort(key=lambda pair: pair[1].order)
    found: list[tuple[Scene, TrialResult]] = []
    seen, tried = set[str](), Counter[int]()
    most = min(MAX_TRIALS, max(8, MAX_WORK // max(1, len(scenes[0].right.recording.operations))))
    for scene, trial in trials:
        within = [one.trial.order for _, one in found if one.within]
        if search.is_over or len(seen) >= most or len(within) >= MAX_SAME or (within and trial.order > min(within)):
            break  # what is less likely is not tried any more
        made = trial.changes(0)
        places = [tuple(map(id, one.place)) for one in (*made.edits, *made.loops)]
        outputs = [str(name) for name, _ in made.outputs]
        key = f"{trial.text} {trial.variant} {places} {outputs}"
        if key in seen or tried[trial.rank] >= MAX_OF_RANK:
            continue
        seen.add(key)
        tried[trial.rank] += 1
        if (result := _try_cause(search, trial, changes, error)) is not None:
            found.append((scene, result))
    return found


def _collect(kind: Callable[[Scene], Iterator[Trial]], scene: Scene) -> list[Trial]:
    try:
        return list(kind(scene))
    except FAILURES:
        return []


def _try_cause(search: Search, trial: Trial, changes: ChangesOf, error: float) -> TrialResult | None:
    """Run the candidate with a change: on the first probe, and where it explains all, on the others."""
    together = join_changes(changes, trial.changes)
    left = 0.0
    for at, (_, inputs) in enumerate(search.runs.inputs):
        try:
            run = record_program(search.runs.candidate, inputs, together(at), prints=False)
            left = max(left, search.judge.left(run, at) / max(error, 1e-300))
            within = search.judge.is_within(run, at)
        except FAILURES:
            return None  # the change does not fit there
        if not within:
            return TrialResult(trial, left, False)
    return TrialResult(trial, 0.0, True)
