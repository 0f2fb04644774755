"""Does every public method give the same outputs, in every mode?"""

from equiv.comparison.checks.coverage import CheckAnswer, compare_all
from equiv.comparison.observation import Comparison


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare the outputs of every method and mode."""
    return compare_all(comparison, "outputs")
