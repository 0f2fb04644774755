"""Are the loss and its gradient the same, leaf by leaf, for every parameter and every float input?"""

from equiv.compare.checks.coverage import sweep
from equiv.compare.observation import Comparison
from equiv.core.results import CheckResult

NAME = "gradients"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare losses and gradients."""
    return sweep(NAME, comparison, lambda program, _: program.startswith("gradient "))
