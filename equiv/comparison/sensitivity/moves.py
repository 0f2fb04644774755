"""Whether the first probe shows a change of each leaf."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equiv.comparison.sensitivity.first_order import LeafSlopes
from equiv.comparison.sensitivity.trial_runs import NOTHING, LeafChange, Shown, TrialRuns, finite_ratio
from equiv.core.output_name import OutputName
from equiv.core.results import ProbeTrial

UNNOTICED = "it changes no output, gradient, state or train step by more than its budget"
ZERO_IN_THEORY = "its gradient is zero in theory, and"
NOT_TRIED = "not tried: no more runs are made than there are leaves"


@dataclass(frozen=True)
class Moves:
    """What is known of changes of each leaf.

    Attributes:
        trials: one for each leaf.
        together: leaves that were moved in one run, which shows nothing.
        shown: what that run shows.
    """

    trials: tuple[ProbeTrial, ...]
    together: frozenset[str] = frozenset()
    shown: Shown = NOTHING

    @property
    def unnoticed(self) -> frozenset[str]:
        """The leaves of which no change is noticed."""
        return frozenset(trial.subject[0] for trial in self.trials if not trial.detected)


def try_moves(runs: TrialRuns, slopes: Mapping[str, LeafSlopes], returned: Mapping[str, OutputName]) -> Moves:
    """Decide for each leaf whether a change of it is noticed: from gradients or from what is returned, else by a run.

    Args:
        runs: that may be made.
        slopes: leaf to what its gradients say.
        returned: leaf to the output that is the leaf itself.
    """
    read = {
        leaf: (one.shown, f"the first order changes {one.shown.output}") for leaf, one in slopes.items() if one.suffices
    }
    read |= {
        leaf: (Shown(str(name), math.inf), f"returned as {name}") for leaf, name in returned.items() if leaf in slopes
    }
    known = {leaf: shown for leaf, (shown, _) in read.items()}
    flat = [leaf for leaf, one in slopes.items() if one.is_zero and leaf not in known]
    quiet, joint = flat, _move_together(runs, flat)
    if joint is not None and joint.noticed:
        quiet, noticed = _find_quiet(runs, flat)
        known |= noticed
        joint = _move_together(runs, quiet)
    if joint is not None and not joint.noticed:
        known |= dict.fromkeys(quiet, joint)
    left = [LeafChange("moved", (leaf,)) for leaf in slopes if leaf not in known]
    known |= {change.leaves[0]: shown for change, shown in runs.try_changes(left).items()}
    trials = tuple(
        ProbeTrial("moved", (leaf,), True, finite_ratio(read[leaf][0].ratio), read[leaf][1], unrun=1)
        if leaf in read
        else _moved_trial(leaf, known.get(leaf), slopes[leaf])
        for leaf in slopes
    )
    return Moves(trials) if joint is None or joint.noticed else Moves(trials, frozenset(quiet), joint)


def _move_together(runs: TrialRuns, leaves: list[str]) -> Shown | None:
    """Move leaves in one run; None: they are too few, or runs are."""
    change = LeafChange("moved", tuple(leaves))
    # A joint run costs one more than they have together if it shows something: then it must not be one too many.
    return runs.try_changes([change]).get(change) if 1 < len(leaves) < runs.left else None


def _find_quiet(runs: TrialRuns, leaves: list[str]) -> tuple[list[str], dict[str, Shown]]:
    """Find the leaves of which no call and no gradient shows that they are moved, and what shows the others.

    Leaves whose gradient rounds to zero may still matter to a call. Those that do are found by halves, so that the
    train steps, which cost most of a run, are made once for all others and not for each.
    """
    quiet: list[str] = []
    noticed: dict[str, Shown] = {}
    half = len(leaves) // 2
    waiting = [leaves[:half], leaves[half:]]
    while waiting and runs.left > len(leaves):
        some = waiting.pop()
        change = LeafChange("moved", tuple(some))
        shown = runs.try_changes([change], in_calls=True)[change]
        if not shown.noticed:
            quiet += some
        elif half := len(some) // 2:
            waiting += [some[:half], some[half:]]
        else:
            noticed[some[0]] = shown
    return quiet, noticed


def _moved_trial(leaf: str, shown: Shown | None, slopes: LeafSlopes) -> ProbeTrial:
    if shown is None:
        return ProbeTrial("moved", (leaf,), False, note=NOT_TRIED)
    if shown.noticed:
        return ProbeTrial("moved", (leaf,), True, finite_ratio(shown.ratio), f"seen in {shown.output}")
    note = f"{ZERO_IN_THEORY} {UNNOTICED}" if slopes.is_zero_in_theory else UNNOTICED
    return ProbeTrial("moved", (leaf,), False, shown.ratio, note)
