"""How the initial parameter values of two libraries compare. A difference affects training, never the function."""

from equiv.core.results import InitialValues


def describe_initial_values(starts: tuple[InitialValues, ...]) -> str:
    """Describe how many leaves have the same initial distribution, and the first that has not."""
    different = [start for start in starts if not start.same]
    same = len(starts) - len(different)
    sign = "≈" if different else "✓"
    counted = f"{sign} initial values: {same} of {len(starts)} leaves have the same distribution"
    if not different:
        return counted
    first = different[0]
    return (
        f"{counted}; {first.leaf}: reference {first.reference}; {first.candidate} {first.candidate_values}; "
        f"training starts differently, the function is the same. {first.hint}"
    )
