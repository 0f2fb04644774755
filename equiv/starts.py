"""Noun of how a leaf starts in two libraries. A difference is one of training, never of the function. No jax here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """The initial values of one leaf in the reference and in one candidate.

    Attributes:
        leaf: canonical name.
        candidate: whose values are compared with the reference's.
        same: whether both can be draws of one distribution, at the level of `equiv.initial.LEVEL` over all leaves.
        p: of the two-sample Kolmogorov-Smirnov test; 1.0 and 0.0 where both are constants, alike and not.
        reference: family, mean and standard deviation, `truncated normal, mean 0, sd 0.0313`.
        candidate_values: the candidate's, likewise.
        ratio: standard deviation of the candidate over the reference's; None where the reference's is 0.
        hint: which initialiser makes the candidate start as the reference does; empty where they are alike.
    """

    leaf: str
    candidate: str
    same: bool
    p: float
    reference: str
    candidate_values: str
    ratio: float | None = None
    hint: str = ""


def told(starts: tuple[Start, ...]) -> str:
    """How many leaves start otherwise, in a sentence, and the first of them."""
    apart = [start for start in starts if not start.same]
    counted = f"{'≈' if apart else '✓'} initial values: {len(starts) - len(apart)} of {len(starts)} leaves start alike"
    if not apart:
        return counted
    first = apart[0]
    return (
        f"{counted}; {first.leaf}: reference {first.reference}; {first.candidate} {first.candidate_values}; "
        f"another training, the same function. {first.hint}"
    )
