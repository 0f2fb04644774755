"""One check of one candidate as a table cell: a sign, the grade, and error / budget. And a finding in sentences."""

from collections.abc import Iterable, Sequence

from equiv.core.budget import BUDGET_LEVEL, BUDGET_RISK, rounding_growth
from equiv.core.checks import CHECK_NAMES
from equiv.core.output_name import TRAINING
from equiv.core.results import CaseResult, CheckResult, Finding, ProbeTrial, TrialKind
from equiv.report.findings.divergences import describe_divergences

GRADE_SIGNS = {
    "proved": "✓",
    "proved modulo": "✓",
    "exact": "✓",
    "float64": "✓",
    "rounding": "✓",
    "expected": "≈",
    "statistical": "✓",
    "unidentifiable": "?",
    "vacuous": "?",
    "blocked": "…",
    "not run": "…",
    "error": "!",
    "refuted": "✗",
}
"""A sign for every grade, so that no meaning depends on colour alone."""

NOT_APPLICABLE = "\N{EN DASH}"
"""Shown where a check does not apply: the model has no state, or draws no random numbers."""

VERDICT_SIGNS = {"same": "✓", "different": "✗", "inconclusive": "?", "error": "!"}


def shown_checks(cases: Iterable[CaseResult]) -> tuple[str, ...]:
    """The checks that apply to one of the cases at least: the others have no column."""
    made = {check.check for case in cases for check in case.checks}
    return tuple(check for check in CHECK_NAMES if check in made)


def check_cell(case: CaseResult, candidate: str, check: str, ratio: bool = True) -> tuple[str, str]:
    """Return text and grade of one cell, with its largest error / budget; a dash where the check does not apply."""
    found = next((one for one in case.checks if one.candidate == candidate and one.check == check), None)
    if found is None:
        return NOT_APPLICABLE, ""
    # A proof does not depend on measured numbers.
    shows = ratio and not found.grade.startswith("proved")
    return f"{GRADE_SIGNS[found.grade]} {found.grade}{_worst_ratio(found) if shows else ''}", found.grade


def _worst_ratio(check: CheckResult) -> str:
    ratios = [finding.ratio for finding in check.findings if finding.ratio is not None and finding.grade == check.grade]
    worst = max(ratios, default=0.0)
    return f" {format_ratio(worst)}" if worst else ""


def format_ratio(ratio: float) -> str:
    """Format a ratio with two digits: `0.03`, `1.2`, `4.1e+03`."""
    return f"{ratio:.2g}"


def count_trials(trials: Sequence[ProbeTrial], kind: TrialKind) -> str:
    """How many of the trials of a kind are detected, in words; of swaps how many pairs."""
    tried = [trial for trial in trials if trial.kind == kind]
    return f"{sum(trial.pairs for trial in tried if trial.detected)} of {sum(trial.pairs for trial in tried)}"


def count_unrun(trials: Sequence[ProbeTrial]) -> str:
    """Say how many changes and swaps are noticed without a run; empty where none is."""
    unrun = sum(trial.unrun for trial in trials if trial.detected)
    return f"{unrun} of these without a run, by gradients and by what is returned" if unrun else ""


def describe_conditions(trials: Sequence[ProbeTrial]) -> list[str]:
    """Describe what the probes of a run depend on: a longer batch, or the environment of a frozen reference."""
    found = [f"environment: {trial.note}" for trial in trials if trial.kind == "environment"]
    longer = [trial for trial in trials if trial.kind == "longer batch"]
    return found + [f"batch size increased: {', '.join(trial.subject)}" for trial in longer]


def describe_finding(finding: Finding, reference: str, candidate: str) -> list[str]:
    """Describe a finding in sentences: both values, the index, error / budget, and where the budget comes from."""
    lines = [finding.note] if finding.note else []
    if finding.rewrites:
        lines.append(f"proved the same function modulo {', '.join(finding.rewrites)}")
    if finding.divergences:
        lines += describe_divergences(finding)
    elif finding.first_differences:
        lines.append(f"first different: {'; '.join(map(str, finding.first_differences))}")
    index = list(finding.index)
    if index and finding.output is not None and finding.output.program == TRAINING:
        at = f" at {index[1:]} after step {index[0] + 1}" if index[1:] else f" after step {index[0] + 1}"
    else:
        at = f" at {index}" if index else ""
    if finding.reference or finding.candidate:
        lines.append(f"{reference} {finding.reference}, {candidate} {finding.candidate}{at}")
    if finding.error is not None:
        over = f" = {format_ratio(finding.ratio)} x budget" if finding.ratio is not None else ""
        judged = f" ({finding.precision} run, probe {finding.probe})" if finding.precision else ""
        lines.append(f"error {finding.error:.3g} / budget {finding.budget or 0:.3g}{over}{judged}")
    if finding.response is not None and finding.depth:
        lines.append(_describe_budget(finding, finding.response, finding.depth))
    return lines


def _describe_budget(finding: Finding, response: float, depth: int) -> str:
    derived = response * rounding_growth(depth, finding.factor)
    override = f"; times {finding.factor:g}, an OVERRIDE set by the case" if finding.factor != 1 else ""
    if finding.budget is not None and finding.budget > derived * 1.001:
        return (
            "budget: twice the reference's distance from its own float64 run, which is larger than the predicted "
            "rounding error"
        )
    return (
        f"budget: one ulp in every input changes this by {response:.2g}; times the square root of {depth} rounded "
        f"operations in sequence; times {BUDGET_LEVEL:.2g}, which chance "
        f"exceeds once in {1 / BUDGET_RISK:,.0f}{override}"
    )
