"""A result as pytest shows it: one line with the place first, and the table as a section of the report."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.frontends.pytest_plugin.worker_results import alone
from equiv.report.cells import shown, values
from equiv.report.terminal.run import show

MOST = 100
"""Characters of a failure's line: with CI=1 pytest prints messages whole, once more for every failure."""


class Unequal(AssertionError):
    """Ports that are not known to be equal.

    Attributes:
        run: the run of the case alone.
        key: what it is filed under once it has ended a test; empty where it is filed already.
    """

    def __init__(self, message: str, run: RunResult, key: str = "") -> None:
        super().__init__(message)
        self.run = run
        self.key = key

    @property
    def result(self) -> CaseResult:
        """What was found, of every check."""
        return self.run.cases[0]


class Mismatch(Unequal):
    """Two ports differ."""

    __module__ = "equiv"  # what pytest prints before the message


class NotCompared(Unequal):
    """Nothing can be said: an error, a missing library or device, probes that cannot tell. Never a pass."""

    __module__ = "equiv"


def failure(run: RunResult, check: CheckResult | None = None, where: str = "") -> Unequal:
    """The exception that a check calls for which is not equal.

    Args:
        run: the run of the case alone.
        check: the check; None: the case as a whole could not be judged, or the check does not apply.
        where: put at the end where the test's name does not say which check of which candidate it is.
    """
    (result,) = run.cases
    if check is None:
        return NotCompared(_one_line(result.problem or f"does not apply{where}"), run)
    worst = worst_of(check)
    place = worst.place if worst and worst.place != check.candidate else ""
    if check.grade == "refuted" and worst is not None:
        return Mismatch(_one_line(": ".join(filter(None, (place, _difference(result, check, worst)))), where), run)
    said = worst.note if worst and worst.note else check.summary
    return NotCompared(_one_line(": ".join(filter(None, (check.grade, place, said))), where), run)


def worst_of(check: CheckResult) -> Finding | None:
    """The finding that a check's grade comes from, that with the largest ratio; None where it has no findings."""
    return max((item for item in check.findings if item.grade == check.grade), key=severity, default=None)


def _difference(result: CaseResult, check: CheckResult, finding: Finding) -> str:
    over = f"{shown(finding.ratio)} x budget" if finding.ratio is not None else finding.note
    if not (finding.reference or finding.candidate):
        return over
    return f"{over}; {result.reference} {finding.reference}, {check.candidate} {finding.candidate}"


def _one_line(text: str, where: str = "") -> str:
    line, most = " ".join(text.split()), MOST - len(where)
    return (line if len(line) <= most else f"{line[: most - 3]}...") + where


def of_candidate(run: RunResult, candidate: str) -> RunResult:
    """The run of a case with one of its candidates only."""
    (result,) = run.cases
    if candidate not in result.verdicts:
        return run
    checks = tuple(check for check in result.checks if check.candidate == candidate)
    verdicts = {candidate: result.verdicts[candidate]}
    return alone(replace(result, candidates=(candidate,), verdicts=verdicts, checks=checks), run.environment)


def table(run: RunResult, config: pytest.Config, check: CheckResult | None = None) -> str:
    """A case as `equiv run` shows it, coloured where pytest's own output is.

    Args:
        run: the run of the case alone.
        config: whose terminal it is shown in.
        check: this check's worst finding is added, where another one stands first.
    """
    (result,) = run.cases
    if result.problem:
        return result.problem
    writer, text = config.get_terminal_writer(), io.StringIO()
    colours = "standard" if writer.hasmarkup else None
    console = Console(
        file=text, width=writer.fullwidth, color_system=colours, force_terminal=writer.hasmarkup, highlight=False
    )
    show(run, console)
    if check is not None and (worst := worst_of(check)) is not None:
        lines = [f"  {line}" for line in values(worst, result.reference, check.candidate)]
        if lines and not any(lines[-1] in line for line in text.getvalue().splitlines()):
            console.print("\n".join([f"\n{check.check}, {worst.place}", *lines]), markup=False, soft_wrap=True)
    return text.getvalue().rstrip()
