"""Are the loss and its gradient the same, leaf by leaf, for every parameter and every float input?"""

from equiv.comparison.checks.coverage import CheckAnswer, compare_all
from equiv.comparison.observation import Comparison


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare losses and gradients."""
    return compare_all(comparison, "gradients")
