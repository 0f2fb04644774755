"""Noun of how a leaf starts in two libraries. A difference is one of training, never of the function. No jax here."""

from equiv.core.results import Start


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
