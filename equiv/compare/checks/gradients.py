"""Are the loss and its gradient the same, leaf by leaf, for every parameter and every float input?"""

from equiv.compare.checks.coverage import compare_all
from equiv.compare.observation import Comparison
from equiv.core.results import CheckResult

NAME = "gradients"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare losses and gradients."""
    return compare_all(NAME, comparison)
