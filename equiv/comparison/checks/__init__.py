"""One file per check, named after it. Checks read outputs of runs and import no library.

`equiv.core.checks` lists them. Each file has `check(comparison) -> CheckAnswer | None`.
"""

from dataclasses import dataclass
from importlib import import_module

from equiv.comparison.checks.coverage import CheckAnswer, summarise_grades
from equiv.comparison.observation import Comparison
from equiv.core.checks import CHECK_NAMES
from equiv.core.results import CheckResult
from equiv.core.verdict import check_grade


@dataclass(frozen=True)
class Check:
    """One check: its name, and the module of that name, whose function `check` makes its findings."""

    name: str

    def run(self, comparison: Comparison) -> CheckResult | None:
        """Check one candidate; None where the check does not apply to its model."""
        answer: CheckAnswer | None = import_module(f"{__name__}.{self.name}").check(comparison)
        if answer is None:
            return None
        findings, candidate = answer.findings, comparison.candidate.table.port
        summary = answer.summary or summarise_grades(findings)
        grade = check_grade(findings)
        return CheckResult(self.name, candidate, grade, summary, findings, remarks=answer.remarks)


CHECKS = {name: Check(name) for name in CHECK_NAMES}
"""Name to check, in the order of `equiv.core.checks.CHECK_KINDS`."""
