"""Does every public method give the same outputs, in every mode?"""

from equiv.compare.checks.coverage import compare_all
from equiv.compare.observation import Comparison
from equiv.core.results import CheckResult

NAME = "outputs"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare the outputs of every method and mode."""
    return compare_all(NAME, comparison)
