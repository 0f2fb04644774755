"""Is the state the same after every call, and are eval-mode outputs after training the same?"""

from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer, compare_either, select_compared
from equiv.comparison.numeric.difference import compare_output
from equiv.comparison.observation import Comparison
from equiv.comparison.training import is_training_shared
from equiv.core.results import Finding


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare every state leaf after every call, and everything in eval mode after training."""
    left, right = (select_compared(side, "state") for side in (comparison.reference, comparison.candidate))
    own = comparison.one_sided_leaves
    findings: list[Finding] = []
    shared = is_training_shared((comparison.reference.train_step, comparison.candidate.train_step))
    for output in {**left, **right}:
        if output.after_training and not shared:
            continue  # the check of training says why
        leaf = own.get(output.leaf)
        if leaf is None:
            findings.append(compare_either(comparison, output, left, right))
        elif leaf.mirrors is not None and output in left:
            # Where the formula has converged, a leaf that only the reference has repeats one that both have.
            shared = replace(output, leaf=leaf.mirrors)
            findings.append(compare_output(comparison, output, shared, probes=comparison.ordinary_probes))
    return CheckAnswer(tuple(findings)) if findings else None
