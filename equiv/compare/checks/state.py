"""Is the state the same after every call, and do both ports still agree in eval mode after training?"""

from equiv.compare.checks.coverage import one, places, summary
from equiv.compare.numeric.difference import compare
from equiv.compare.observation import Comparison
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import weakest

NAME = "state"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare every state leaf after every call, and everything in eval mode after training."""

    def wanted(program: str, output: str) -> bool:
        return output.startswith("state ") or program.startswith("after training, ")

    left, right = places(comparison.reference, wanted), places(comparison.candidate, wanted)
    own = {
        leaf.name: leaf
        for side in (comparison.reference, comparison.candidate)
        for leaf in side.table.leaves
        if leaf.own
    }
    findings: list[Finding] = []
    for place in {**left, **right}:
        leaf = own.get(place.partition(": state ")[2])
        if leaf is None:
            findings.append(one(comparison, place, left, right))
        elif leaf.copies is not None and place in left:
            # Where the formula has settled, a leaf that only the reference has repeats one that both have.
            shared = place.replace(leaf.name, leaf.copies)
            findings.append(compare(comparison, place, shared, probes=comparison.warm))
    if not findings:
        return None
    candidate = comparison.candidate.table.backend
    return CheckResult(NAME, candidate, weakest(tuple(findings)), summary(tuple(findings)), tuple(findings))
