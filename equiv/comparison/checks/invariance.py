"""Does each port give rows alone, and rows without their padding, what it gives them in the batch?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Comparison, InvarianceRun
from equiv.core.grades import GRADE_PRIORITY
from equiv.core.results import Finding


def check(comparison: Comparison) -> CheckAnswer | None:
    """Judge both ports by themselves; None where the case declares nothing."""
    titles = dict.fromkeys(run.title for run in comparison.invariances)
    findings = tuple(
        one for title in titles for one in _judge([run for run in comparison.invariances if run.title == title])
    )
    return CheckAnswer(findings) if findings else None


def _judge(runs: Sequence[InvarianceRun]) -> Iterator[Finding]:
    """Judge the ports on one declaration.

    Where both are off, the ports may well be one model: the declaration is wrong for both, and neither is the other's.
    """
    off = [run.port for run in runs if any(one.grade == "refuted" for one in run.findings)]
    for run in runs:
        place = f"{run.port}: {run.title}"
        if run.problem:
            yield Finding(place, "error", note=run.problem)
            continue
        worst = max(run.findings, key=_severity)
        assert worst.output is not None, "these are outputs"
        named = replace(worst, place=f"{place}: {worst.output.path}", reference="", candidate="", output=None)
        if worst.grade != "refuted":
            yield replace(named, note="; ".join(filter(None, (named.note, run.tried))))
            continue
        at = f" at {list(worst.index)}" if worst.index else ""
        note = f"in the batch it computes {worst.reference}, alone {worst.candidate}{at}"
        if len(off) > 1:
            yield replace(named, grade="error", note=f"{note}; {' and '.join(off)} both differ by this. {_FIX}")
        else:
            yield replace(named, note=f"{note}. {_FIX}")


def _severity(finding: Finding) -> tuple[int, float]:
    """The weakest grade first, then the largest ratio; a refusal without one is worse than any number."""
    ratio = math.inf if finding.ratio is None else finding.ratio
    return -GRADE_PRIORITY.index(finding.grade), ratio


_FIX = (
    "Look for a mask that is not applied, a mean or softmax over the batch or over padding, or a batch norm that uses "
    "the batch in eval mode"
)
