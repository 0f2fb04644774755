"""Find where two programs part, one divergence after the other, and try causes on the candidate's program."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv.comparison.explain.alignment import Alignment, align_runs, join_runs
from equiv.comparison.explain.causes.trial import Pair, Scene, edit_at, fit, near_operations, near_values
from equiv.comparison.explain.judge import Judge, ProgramRuns
from equiv.comparison.explain.pairs import count_reached, pair_frontiers
from equiv.comparison.explain.recording import Changes, Operation, RecordingEvaluation, record_program
from equiv.comparison.explain.trying import (
    FAILURES,
    ChangesOf,
    Search,
    TrialResult,
    join_changes,
    try_causes,
    unchanged,
)
from equiv.core.first_difference import is_backward
from equiv.core.output_name import STEP
from equiv.programs.program import Program

MAX_ROUNDS = 6
"""Most divergences that are looked for in one program, one after the other."""

MAX_PAIRS = 8
"""Most operations at which chains begin that are looked at together."""

MAX_SECONDS = 40.0
"""Seconds of processor time after which no more causes are tried, however large a program is: the verdict is known."""

MAX_FORCED = 6
"""Most pairs of values that are tried to be forced where no cause explains a divergence."""

MAX_PARTIAL = (3, 2, 1)
"""Most causes that leave an error, after each of which the search goes on: first divergence, second, later ones."""

NEARLY_ALL = 0.05
"""A cause that leaves no more than this part of the error is one, though the rest is not explained."""

MAX_LOOKED = 8
"""Most causes that leave an error for which it is looked whether the chains begin elsewhere then."""

MENDED = 0.9
"""Causes that leave more of the error than this part are looked at in their own order."""

WORSE = 1.25
"""A change that leaves more than this part of the error explains nothing."""


@dataclass(frozen=True, eq=False)
class FoundDivergence:
    """One divergence that was found.

    Attributes:
        scene: where the programs part, and what is around it.
        causes: that were tried and explain it, the best first.
        left: what forcing the reference's value there leaves of the error; None: not tried, or not possible.
        drop: the part of the candidate's whole error that it accounts for, as far as known.
    """

    scene: Scene
    causes: tuple[TrialResult, ...]
    left: float | None
    drop: float


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What was found in one program.

    Attributes:
        divergences: the one that accounts for most first.
        alignment: of the programs as they are; None: they do not differ on these probes.
        ended: whether there was no time to try every cause.
    """

    divergences: tuple[FoundDivergence, ...] = ()
    alignment: Alignment | None = None
    ended: bool = False


def align_programs(runs: ProgramRuns) -> Alignment | None:
    """Align two programs by their values; None: they do not differ on these probes. As of `find_divergences`."""
    search = start_search(runs)
    return None if search is None else align_candidate(search)


def align_candidate(search: Search) -> Alignment | None:
    """Align the reference with the candidate as it is."""
    return _align(search, search.base)


def start_search(
    runs: ProgramRuns,
    base: ChangesOf = unchanged,
    texts: frozenset[str] = frozenset(),
    seconds: float | None = None,
) -> Search | None:
    """Run both programs; None: no refuted output is over its budget in these runs.

    Args:
        runs: the programs and what they are run on.
        base: changes of the candidate's that are made from the first run on.
        texts: of the causes that are tried; empty: all.
        seconds: of processor time after which no more are tried; None: `MAX_SECONDS`.
    """
    ends = time.process_time() + (MAX_SECONDS if seconds is None else seconds)
    ours = [record_program(runs.reference, pair[0]) for pair in runs.inputs]
    moved = [record_program(runs.reference, pair[0]) for pair in runs.nudged]
    before = [record_program(runs.candidate, pair[1], base(at), False) for at, pair in enumerate(runs.inputs)]
    judge = Judge(runs, ours, moved, before)
    return Search(runs, judge, join_runs(ours, moved), ends, base, texts) if judge.refuted else None


def is_within_after(search: Search, candidate: Program) -> bool:
    """Whether another program in place of the candidate's has every output within its budget."""
    return all(
        search.judge.is_within(record_program(candidate, pair[1], prints=False), at)
        for at, pair in enumerate(search.runs.inputs)
    )


def find_divergences(runs: ProgramRuns, search: Search | None = None) -> SearchResult:
    """Find the divergences of two programs, with causes tried; call it inside `jax.enable_x64(True)`.

    Args:
        runs: the programs and what they are run on.
        search: what `start_search` returned for them, where that was called before.
    """
    search = search or start_search(runs)
    if search is None:
        return SearchResult()
    first = _align(search, search.base)
    if first is None:
        return SearchResult()
    found, left = _follow(search, first, search.base, 1.0, 0)
    doubtful = left > 0 or any(one.left is not None for one in found)
    loose = [{cause.trial.text for cause in one.causes if not cause.trial.in_place} for one in found]
    loose = [texts for texts in loose if texts]
    # The same change in every layer is one cause; several such changes together make anything of anything.
    common = frozenset[str]().union(*loose[:1]).intersection(*loose)
    if doubtful or (len(found) > 1 and loose and not common):
        found = [_without_doubtful(one, doubtful) for one in found]
    elif len(found) > 1:
        found = [_begin_with(one, common) for one in found]
    if any(name.kind in ("loss", "output") for name in search.judge.refuted):
        found = [one for one in found if not _is_backward(one)] or [replace(one, causes=()) for one in found]
    return SearchResult(tuple(_sort_divergences(found)), first, search.is_over)


def _is_backward(one: FoundDivergence) -> bool:
    """Whether a place is in a backward pass: where the loss differs too, what differs there follows from it."""
    operation = one.scene.pair.candidate or one.scene.pair.reference
    return operation is not None and is_backward(str(operation.eqn.source_info.name_stack))


def _sort_divergences(found: Sequence[FoundDivergence]) -> list[FoundDivergence]:
    """Those that account for most first; of one change at several places, the first place of the program."""
    drops: dict[object, float] = {}
    keys = [one.causes[0].trial.text if one.causes else number for number, one in enumerate(found)]
    for key, one in zip(keys, found, strict=True):
        drops[key] = max(one.drop, drops.get(key, -1.0))
    places = [_place_of(one) for one in found]
    order = sorted(range(len(found)), key=lambda at: (-drops[keys[at]], places[at]))
    return [found[at] for at in order]


def _place_of(one: FoundDivergence) -> int:
    """Where in the candidate's program a divergence is."""
    operation = one.scene.pair.candidate
    made = one.scene.right.recording.maker
    return 0 if operation is None or not operation.outs else made.get(operation.outs[0], 0)


def _begin_with(one: FoundDivergence, texts: frozenset[str]) -> FoundDivergence:
    """Name the changes that explain the other places, too, before others."""
    return replace(one, causes=tuple(sorted(one.causes, key=lambda cause: cause.trial.text not in texts)))


def _without_doubtful(one: FoundDivergence, forced: bool) -> FoundDivergence:
    """Leave out causes that explain only part, or only with others.

    A value that was forced hides what comes before it, and what is left of an error may have the same cause.
    """
    kept = (cause for cause in one.causes if cause.within or not forced or cause.left <= NEARLY_ALL)
    return replace(one, causes=tuple(cause for cause in kept if cause.trial.in_place))


def _follow(
    search: Search, alignment: Alignment, changes: ChangesOf, error: float, depth: int
) -> tuple[list[FoundDivergence], float]:
    """Find one divergence after the other: of the causes that leave an error, those after which the rest is explained.

    Returns:
        The divergences, and the part of the error that they leave.
    """
    scenes = _make_scenes(search, alignment, changes) if depth < MAX_ROUNDS and not search.is_over else []
    if not scenes:
        return [], error
    results = try_causes(search, scenes, changes, error)
    within = [result for _, result in results if result.within]
    if within:
        scene = next(scene for scene, result in results if result is within[0])
        texts = {result.trial.text: result for result in reversed(within)}
        return [FoundDivergence(scene, tuple(reversed(texts.values())), None, error)], 0.0
    best: tuple[list[FoundDivergence], float] | None = None
    usable = [one for one in results if one[1].left <= WORSE]
    # Of two faults one may account for nearly all of the error: what matters is that nothing begins there any more.
    partial_results = sorted(usable, key=lambda pair: (round(min(pair[1].left, MENDED), 6), pair[1].trial.order))
    after_each = 0
    for scene, result in partial_results[:MAX_LOOKED]:
        if search.is_over or after_each >= MAX_PARTIAL[min(depth, len(MAX_PARTIAL) - 1)]:
            break
        together = join_changes(changes, result.trial.changes)
        after = _align(search, together)
        if after is not None and not _is_shared_in(after, scene):
            continue
        after_each += 1
        remaining = result.left * error
        one = FoundDivergence(scene, (result,), None, error - remaining)
        rest = ([], 0.0) if after is None else _follow(search, after, together, remaining, depth + 1)
        if best is None or rest[1] < best[1]:
            best = [one, *rest[0]], rest[1]
        if not best[1]:
            return best
    forced = _follow_forced(search, scenes, changes, error, depth)
    return min((one for one in (best, forced) if one is not None), key=lambda one: one[1])


def _follow_forced(
    search: Search, scenes: Sequence[Scene], changes: ChangesOf, error: float, depth: int
) -> tuple[list[FoundDivergence], float]:
    """Go on after a divergence without a cause, with the reference's value in place of the candidate's."""
    forced = _force(search, scenes, changes, error)
    if forced is None:
        return [FoundDivergence(scenes[0], (), None, 0.0)], error
    scene, together, left = forced
    one = FoundDivergence(scene, (), left, error * (1 - left))
    after = _align(search, together)
    if after is None:
        return [one], 0.0
    rest = _follow(search, after, together, error * left, depth + 1)
    return [one, *rest[0]], rest[1]


def _align(search: Search, changes: ChangesOf) -> Alignment | None:
    """Align the reference with the changed candidate; None: every output is within its budget."""
    theirs = [record_program(search.runs.candidate, pair[1], changes(at)) for at, pair in enumerate(search.runs.inputs)]
    refuted = tuple(
        name
        for name in search.judge.refuted
        if any(search.judge.ratio(run, at, name) > 1 for at, run in enumerate(theirs))
    )
    if not refuted:
        return None
    moved = [record_program(search.runs.candidate, pair[1], changes(at)) for at, pair in enumerate(search.runs.nudged)]
    return align_runs(search.reference, join_runs(theirs, moved), refuted)


def _make_scenes(search: Search, alignment: Alignment, changes: ChangesOf) -> list[Scene]:
    """The places where both programs part, with the arrays around them."""
    reached = count_reached(alignment) if _has_backward_pass(alignment) else Counter[Any]()
    pairs = sorted(
        pair_frontiers(alignment),
        key=lambda pair: (_is_aside(alignment, pair), -reached[pair.candidate.key if pair.candidate else None]),
    )[:MAX_PAIRS]
    near = [near_values(alignment, pair) for pair in pairs]
    kept = [frozenset[int]().union(*(sides[number] for sides in near)) for number in (0, 1)]
    ours, theirs = [], []
    for at, (left, right) in enumerate(search.runs.inputs):
        ours.append(record_program(search.runs.reference, left, prints=False, keep=kept[0]).kept)
        theirs.append(record_program(search.runs.candidate, right, changes(at), prints=False, keep=kept[1]).kept)
    return [Scene(alignment, pair, ours, theirs, search.runs.names) for pair in pairs]


def _has_backward_pass(alignment: Alignment) -> bool:
    """Whether there is one: each of its operations reads the forward pass, part of which both compute another way."""
    return any(one.program.is_gradient or one.program == STEP for one in alignment.refuted)


def _is_aside(alignment: Alignment, pair: Pair) -> bool:
    """Whether a place is in the forward pass of a gradient whose loss agrees: what differs there is another way."""
    name = alignment.refuted[0].program
    if pair.candidate is None or not name.is_gradient or any(one.kind == "loss" for one in alignment.refuted):
        return False
    return not is_backward(str(pair.candidate.eqn.source_info.name_stack))


def _is_shared_in(after: Alignment, scene: Scene) -> bool:
    """Whether the chains that began at a place do not begin there any more: those left are other divergences."""
    frontier = {operation.key for operation in after.reference.frontier}
    return scene.pair.reference is not None and scene.pair.reference.key not in frontier


def _force(
    search: Search, scenes: Sequence[Scene], changes: ChangesOf, error: float
) -> tuple[Scene, ChangesOf, float] | None:
    """Replace the first result of the candidate by the reference's after which the chains do not begin there."""
    tried = 0
    for scene in scenes:
        for ours, theirs in _similar_results(scene):
            if search.is_over or tried >= MAX_FORCED:
                return None
            tried += 1
            together = join_changes(changes, partial(_forced, scene, ours, theirs))
            try:
                left = max(
                    search.judge.left(record_program(search.runs.candidate, pair[1], together(at), prints=False), at)
                    for at, pair in enumerate(search.runs.inputs)
                ) / max(error, 1e-300)
                after = _align(search, together) if left <= WORSE else scene.alignment
            except FAILURES:
                continue
            if after is None or _is_shared_in(after, scene):
                return scene, together, 0.0 if after is None else left
    return None


def _similar_results(scene: Scene) -> Iterator[tuple[Operation, Operation]]:
    """Yield operations near a divergence that give arrays of one shape, outside of loops, the first ones first."""
    shapes = scene.left.recording.shapes, scene.right.recording.shapes
    ours = near_operations(scene.left, scene.pair.reference)
    theirs = near_operations(scene.right, scene.pair.candidate)
    pairs = [(i + j, one, other) for i, one in enumerate(ours) for j, other in enumerate(theirs)]
    for _, one, other in sorted(pairs, key=lambda pair: pair[0]):
        similar = shapes[0][one.outs[0]] == shapes[1][other.outs[0]] and one.primitive == other.primitive
        if similar and not one.turn and not other.turn and not one.kind and not other.kind:
            yield one, other


def _forced(scene: Scene, ours: Operation, theirs: Operation, probe: int) -> Changes:
    def changed(evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = list(evaluation.compute(eqn, ins))
        outs[0] = fit(scene.ours[probe][ours.outs[0]], outs[0])
        return outs

    return edit_at(theirs, changed)
