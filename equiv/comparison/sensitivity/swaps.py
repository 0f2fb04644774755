"""Whether the first probe shows a swap of two leaves that one could take for another.

There are as many pairs as the square of the number of leaves, and no more runs than leaves or `MOST_SWAPS`:

1. State is separated by what training makes of it from fresh state; see `separate_groups`. That is a probe of the
   comparison.
2. Where the pairs that are left are few, each is swapped in a run.
3. Else leaves are separated by their gradients where all of a group have the same values. Of each group the pair that
   differs least is swapped in a run on the probe itself; if that is noticed, so are the pairs that differ more.
4. Of leaves whose joint change, by factors of 1.25 to 1.75, shows nothing, no swap is taken to be noticed: one of them
   stands for all.
5. What is not separated is swapped in runs, with one leaf of each cluster, or all around. That two swaps with one
   leaf are not noticed says the same of the swap of the other two, as it is made of these.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from equiv.comparison.sensitivity.moves import UNNOTICED, Moves
from equiv.comparison.sensitivity.separate_groups import TIED_RUNS, separate_fresh, separate_tied
from equiv.comparison.sensitivity.separation import Separation
from equiv.comparison.sensitivity.trial_runs import NOTHING, BaseRun, LeafChange, Shown, TrialRuns, finite_ratio
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.core.results import ProbeTrial

Pair = tuple[str, str]
"""Two leaves, in the order of their group."""

SHORT_CLUSTER = 4
"""Number of leaves from which on turning all of them around saves runs."""

MOST_SWAPS = 64
"""Most runs for swaps. Where gradients do not separate leaves, as those in bfloat16, each run says little, and one of a
vision transformer of 12 blocks of width 32, with 200 leaves, takes half a second."""

NOT_SWAPPED = f"not tried: no more runs are made than there are leaves, and of swaps no more than {MOST_SWAPS}"

FRESH = "what training makes of them from fresh state"
ROLES = "their gradients where they are equal"


@dataclass
class GroupTrials:
    """What is known of the swaps of one group.

    Attributes:
        leaves: of one shape, dtype and collection.
        clusters: those that are not separated.
        by: what the others are separated by; empty: all are one cluster.
        run: pair to what shows its swap, of those that were run.
        unnoticed: leaves of which no swap of two is noticed, with the largest change over budget.
        untried: number of pairs that nothing is known of.
        moved_together: leaves of which the first stands for the others in the clusters.
    """

    leaves: tuple[str, ...]
    clusters: tuple[tuple[str, ...], ...]
    by: str = ""
    run: dict[Pair, Shown] = field(default_factory=dict)
    unnoticed: list[tuple[tuple[str, ...], Shown]] = field(default_factory=list)
    untried: int = 0
    moved_together: tuple[str, ...] = ()

    @property
    def open_pairs(self) -> int:
        """Number of pairs that are not separated."""
        return sum(map(count_pairs, self.clusters))

    def leave_out(self, moves: Moves) -> None:
        """Let the first of the leaves that were moved together, which showed nothing, stand for all in the clusters."""
        if not self.moved_together:
            self.moved_together = tuple(leaf for leaf in self.leaves if leaf in moves.together)
            self.add_unnoticed(self.moved_together, moves.shown)
        others = self.moved_together[1:]
        self.clusters = tuple(tuple(leaf for leaf in cluster if leaf not in others) for cluster in self.clusters)

    def add_unnoticed(self, leaves: tuple[str, ...], shown: Shown) -> None:
        """Add leaves of which no swap of two is noticed; what is said of one that stands for others holds for these."""
        if self.moved_together and self.moved_together[0] in leaves:
            self.unnoticed = [one for one in self.unnoticed if one[0] != self.moved_together]
            leaves = self.moved_together = tuple(dict.fromkeys((*self.moved_together, *leaves)))
        if len(leaves) > 1:
            self.unnoticed.append((leaves, shown))

    def swap(self, runs: TrialRuns, pairs: Sequence[Pair]) -> dict[Pair, Shown]:
        """Swap pairs in runs, those that were not swapped before; those that no run was left for are missing."""
        new = {LeafChange("swapped", pair): pair for pair in pairs if pair not in self.run}
        self.run |= {new[change]: shown for change, shown in runs.try_changes(list(new)).items()}
        return {pair: self.run[pair] for pair in pairs if pair in self.run}

    def trials(self) -> Iterator[ProbeTrial]:
        """Yield one trial for all pairs that are noticed, and one for each set of leaves of which none is."""
        if pairs := count_pairs(self.leaves) - sum(count_pairs(one) for one, _ in self.unnoticed) - self.untried:
            noticed = [one for one in self.run.values() if one.noticed]
            least = min(noticed, key=lambda one: one.ratio, default=NOTHING)
            seen = f"seen in {least.output}" if noticed else ""
            unrun = pairs - len(noticed)
            separated = f"separated by {self.by}" if self.by and unrun else ""
            note = "; ".join(filter(None, (seen, separated)))
            ratio = finite_ratio(least.ratio) if noticed else None
            yield ProbeTrial("swapped", self.leaves, True, ratio, note, pairs, unrun)
        for leaves, shown in self.unnoticed:
            # Leaves that were moved together, or turned around, need no run for each swap.
            unrun = sum(pair not in self.run for pair in combinations(leaves, 2))
            yield ProbeTrial("swapped", leaves, False, shown.ratio, UNNOTICED, count_pairs(leaves), unrun)
        if self.untried:
            yield ProbeTrial("swapped", self.leaves, False, note=NOT_SWAPPED, pairs=self.untried)


def count_pairs(leaves: Sequence[str]) -> int:
    """Number of pairs of leaves."""
    return len(leaves) * (len(leaves) - 1) // 2


def try_swaps(
    runs: TrialRuns, table: LeafTable, groups: Sequence[tuple[str, ...]], fresh: BaseRun | None, moves: Moves
) -> tuple[ProbeTrial, ...]:
    """Decide for each two leaves of each group whether their swap is noticed.

    Args:
        runs: that may be made.
        table: the leaves.
        groups: of leaves of one shape, dtype and collection.
        fresh: the reference on the probe with fresh state; None: it has no state.
        moves: what is known of changes of each leaf.
    """
    found = [GroupTrials(leaves, (leaves,)) for leaves in groups]
    for group in found:
        if fresh is not None and table[group.leaves[0]].spec.collection == "state":
            group.clusters, group.by = separate_fresh(fresh, group.leaves).clusters, FRESH
        group.leave_out(moves)
    if sum(group.open_pairs for group in found) <= runs.left:
        for group in found:
            _swap_every_pair(runs, group)
    else:
        _separate_by_role(runs, [group for group in found if _has_roles(table, group)], moves.unnoticed)
        for group in found:
            group.leave_out(moves)
            _swap_within_clusters(runs, group)
    return tuple(trial for group in found for trial in group.trials())


def _has_roles(table: LeafTable, group: GroupTrials) -> bool:
    spec = table[group.leaves[0]].spec
    return spec.collection != "state" and spec.dtype in INEXACT_DTYPES


def _swap_every_pair(runs: TrialRuns, group: GroupTrials) -> None:
    for cluster in group.clusters:
        pairs = list(combinations(cluster, 2))
        shown = group.swap(runs, pairs)
        group.untried += len(pairs) - len(shown)
        missed = {pair: one for pair, one in shown.items() if not one.noticed}
        if missed and len(missed) == len(pairs):
            group.add_unnoticed(cluster, _largest(missed.values()))
        else:
            for pair, one in missed.items():
                group.add_unnoticed(pair, one)


def _largest(shown: Iterable[Shown]) -> Shown:
    return max(shown, key=lambda one: one.ratio)


def _separate_by_role(runs: TrialRuns, groups: Sequence[GroupTrials], blind: frozenset[str]) -> None:
    """Separate leaves by their gradients where they are equal, in the more precise run where there are two."""
    bases = [base for base in runs.bases if base.has_gradients]
    if not groups or not bases or runs.left < TIED_RUNS:
        return
    separated = separate_tied(runs, bases[-1], [group.leaves for group in groups])
    for group in groups:
        separation = _join_blind(separated[group.leaves], blind)
        missed = _confirm_weakest(runs, group, separation)
        if missed is not None:
            for pair, one in missed.items():
                group.add_unnoticed(pair, one)
            group.clusters, group.by = separation.clusters, ROLES


def _join_blind(separation: Separation, blind: frozenset[str]) -> Separation:
    """Join the clusters of leaves of which no change is noticed: that they differ where they are equal says nothing."""
    joined = tuple(leaf for cluster in separation.clusters if not blind.isdisjoint(cluster) for leaf in cluster)
    others = tuple(cluster for cluster in separation.clusters if blind.isdisjoint(cluster))
    weakest = tuple(pair for pair in separation.weakest if not set(joined).issuperset(pair))
    return Separation((*others, joined) if joined else others, weakest)


def _confirm_weakest(runs: TrialRuns, group: GroupTrials, separation: Separation) -> dict[Pair, Shown] | None:
    """Swap the pair that differs least, and so on until a swap is noticed.

    Returns:
        The swaps before it, which are not noticed; None: none is noticed, so that nothing is said of the others.
    """
    missed: dict[Pair, Shown] = {}
    for pair in separation.weakest:
        shown = group.swap(runs, [pair])
        if pair not in shown:
            return None
        if shown[pair].noticed:
            return missed
        missed |= shown
    return None


def _swap_within_clusters(runs: TrialRuns, group: GroupTrials) -> None:
    """Swap the first leaf of each cluster with the others; those of which that is noticed are a cluster again.

    If neither of two swaps with the first is noticed, that of the other two is not; if one of both is, it is.
    """
    waiting = [cluster for cluster in group.clusters if len(cluster) > 1]
    while waiting:
        cluster = waiting.pop()
        if (around := _swap_around(runs, group, cluster)) is not None:
            group.add_unnoticed(cluster, around)
            continue
        first, *others = cluster
        shown = {other: one for (_, other), one in group.swap(runs, [(first, other) for other in others]).items()}
        missed = {other: one for other, one in shown.items() if not one.noticed}
        if missed:
            group.add_unnoticed((first, *missed), _largest(missed.values()))
        rest = tuple(other for other in others if other not in missed)
        if len(shown) < len(others):
            group.untried += (len(others) - len(shown)) * (1 + len(missed)) + count_pairs(rest)
        elif len(rest) > 1:
            waiting.append(rest)


def _swap_around(runs: TrialRuns, group: GroupTrials, cluster: tuple[str, ...]) -> Shown | None:
    """Give each leaf the values of the next, and swap the first two: every order of the leaves is made of these.

    Returns:
        The larger change; None: one of both is noticed or was not run, or the leaves are too few for this to save runs.
    """
    if len(cluster) < SHORT_CLUSTER:
        return None
    change = LeafChange("swapped", cluster)
    around = runs.try_changes([change]).get(change)
    if around is None or around.noticed:
        return None
    pair = cluster[0], cluster[1]
    first = group.swap(runs, [pair]).get(pair)
    return None if first is None or first.noticed else _largest((around, first))
