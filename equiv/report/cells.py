"""What one check of one candidate looks like in a table cell: a sign, a word, and error over budget."""

from equiv.core.results import LEVEL, RISK, CaseResult, CheckResult, Finding

SIGNS = {
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
"""A sign for every grade: colour never speaks alone."""


NOT_ASKED = "\N{EN DASH}"
"""The check does not apply: no state, nothing drawn."""


VERDICT_SIGNS = {"same": "✓", "different": "✗", "inconclusive": "?", "error": "!"}


def cell(case: CaseResult, candidate: str, check: str, ratio: bool = True) -> tuple[str, str]:
    """Text and grade of one cell, with its worst error over budget; a dash where the check does not apply."""
    found = next((one for one in case.checks if one.candidate == candidate and one.check == check), None)
    if found is None:
        return NOT_ASKED, ""
    # What is proved holds whatever the numbers are.
    shows = ratio and not found.grade.startswith("proved")
    return f"{SIGNS[found.grade]} {found.grade}{_ratio(found) if shows else ''}", found.grade


def _ratio(check: CheckResult) -> str:
    ratios = [finding.ratio for finding in check.findings if finding.ratio is not None and finding.grade == check.grade]
    worst = max(ratios, default=0.0)
    return f" {shown(worst)}" if worst else ""


def shown(ratio: float) -> str:
    """A ratio in few characters: `0.03`, `1.2`, `4.1e+03`."""
    return f"{ratio:.2g}"


def values(finding: Finding, reference: str, candidate: str) -> list[str]:
    """A finding in sentences: both values, the index, error over budget, and where the budget comes from."""
    lines = [text for text in (finding.note, finding.source) if text]
    index = list(finding.index)
    if index and finding.place.startswith("train: "):
        at = f" at {index[1:]} after step {index[0] + 1}" if index[1:] else f" after step {index[0] + 1}"
    else:
        at = f" at {index}" if index else ""
    if finding.reference or finding.candidate:
        lines.append(f"{reference} {finding.reference}, {candidate} {finding.candidate}{at}")
    if finding.error is not None:
        over = f" = {shown(finding.ratio)} x budget" if finding.ratio is not None else ""
        judged = f" ({finding.precision} run, probe {finding.probe})" if finding.precision else ""
        lines.append(f"error {finding.error:.3g} / budget {finding.budget or 0:.3g}{over}{judged}")
    if finding.response is not None and finding.depth:
        lines.append(_budget(finding, finding.response, finding.depth))
    return lines


def _budget(finding: Finding, response: float, depth: int) -> str:
    derived = response * depth**0.5 * LEVEL * finding.factor
    override = f"; times {finding.factor:g}, an OVERRIDE of the case" if finding.factor != 1 else ""
    if finding.budget is not None and finding.budget > derived * 1.001:
        return "budget: twice the reference's own distance from its float64 run, which is more than rounding predicts"
    return (
        f"budget: one ulp in every input moves this by {response:.2g}; times the square root of {depth} rounded "
        f"operations in a row; times {LEVEL:.2g}, which chance exceeds once in {1 / RISK:,.0f}{override}"
    )
