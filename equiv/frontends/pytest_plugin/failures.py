"""Failures as pytest shows them: one line with the place first, and the table as a section of the report."""

import io
from dataclasses import replace

import pytest

from equiv.core.headline import severity
from equiv.core.join_runs import single_case_run
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.report.cells import describe_finding, format_ratio
from equiv.report.terminal.run import print_run
from equiv.report.terminal.safe_console import SafeConsole

MAX_LINE_LENGTH = 100
"""Most characters of a failure message: with CI=1 pytest does not truncate messages in its short summary."""


class Unequal(AssertionError):
    """Ports that are not known to be equal.

    Attributes:
        run: the run of the case alone.
        key: under which its run is stored when it fails a test; empty where it is stored already.
    """

    def __init__(self, message: str, run: RunResult, key: str = "") -> None:
        super().__init__(message)
        self.run = run
        self.key = key

    @property
    def result(self) -> CaseResult:
        """The result of the case, with every check."""
        return self.run.cases[0]


class Mismatch(Unequal):
    """Two ports differ."""

    __module__ = "equiv"  # what pytest prints before the message


class NotCompared(Unequal):
    """The comparison gave no verdict: an error, a missing library or device, insensitive probes. Never a pass."""

    __module__ = "equiv"


def make_failure(run: RunResult, check: CheckResult | None = None, where: str = "") -> Unequal:
    """Make the exception for a check without an equal grade.

    Args:
        run: the run of the case alone.
        check: the check; None: the case as a whole has no result, or the check does not apply.
        where: check and candidate, added at the end if the test's name does not contain them.
    """
    (result,) = run.cases
    if check is None:
        return NotCompared(_one_line(result.problem or f"does not apply{where}"), run)
    worst = worst_of(check)
    place = worst.place if worst and worst.place != check.candidate else ""
    if check.grade == "refuted" and worst is not None:
        return Mismatch(_one_line(": ".join(filter(None, (place, _difference_text(result, check, worst)))), where), run)
    reason = worst.note if worst and worst.note else check.summary
    return NotCompared(_one_line(": ".join(filter(None, (check.grade, place, reason))), where), run)


def worst_of(check: CheckResult) -> Finding | None:
    """Select the finding that decides a check's grade, with the largest ratio; None where it has no findings."""
    return max((item for item in check.findings if item.grade == check.grade), key=severity, default=None)


def _difference_text(result: CaseResult, check: CheckResult, finding: Finding) -> str:
    over = f"{format_ratio(finding.ratio)} x budget" if finding.ratio is not None else finding.note
    if not (finding.reference or finding.candidate):
        return over
    return f"{over}; {result.reference} {finding.reference}, {check.candidate} {finding.candidate}"


def _one_line(text: str, where: str = "") -> str:
    line, most = " ".join(text.split()), MAX_LINE_LENGTH - len(where)
    return (line if len(line) <= most else f"{line[: most - 3]}...") + where


def select_candidate(run: RunResult, candidate: str) -> RunResult:
    """Reduce the run of a case to one of its candidates."""
    (result,) = run.cases
    if candidate not in result.verdicts:
        return run
    checks = tuple(check for check in result.checks if check.candidate == candidate)
    verdicts = {candidate: result.verdicts[candidate]}
    return single_case_run(replace(result, candidates=(candidate,), verdicts=verdicts, checks=checks), run.environment)


def render_table(run: RunResult, config: pytest.Config, check: CheckResult | None = None) -> str:
    """Render a case as `equiv run` prints it, coloured where pytest's own output is.

    Args:
        run: the run of the case alone.
        config: with the terminal that it is printed to.
        check: its worst finding is added if it is not in the table.
    """
    (result,) = run.cases
    if result.problem:
        return result.problem
    writer, text = config.get_terminal_writer(), io.StringIO()
    colours = "standard" if writer.hasmarkup else None
    console = SafeConsole(
        file=text, width=writer.fullwidth, color_system=colours, force_terminal=writer.hasmarkup, highlight=False
    )
    print_run(run, console)
    if check is not None and (worst := worst_of(check)) is not None:
        lines = [f"  {line}" for line in describe_finding(worst, result.reference, check.candidate)]
        if lines and not any(lines[-1] in line for line in text.getvalue().splitlines()):
            console.print("\n".join([f"\n{check.check}, {worst.place}", *lines]), markup=False, soft_wrap=True)
    return text.getvalue().rstrip()
