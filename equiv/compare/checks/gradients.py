"""Are the loss and its gradient the same, leaf by leaf, for every parameter and every float input?"""

from equiv.compare.checks.coverage import CheckAnswer, compare_all
from equiv.compare.observation import Comparison


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare losses and gradients."""
    return compare_all(comparison, "gradients")
