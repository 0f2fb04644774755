"""Are the loss and its gradient the same, leaf by leaf, for every parameter and every float input?"""

from equiv.checks.places import sweep
from equiv.observed import Comparison
from equiv.results import CheckResult

NAME = "gradients"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare losses and gradients."""
    return sweep(NAME, comparison, lambda program, _: program.startswith("gradient "))
