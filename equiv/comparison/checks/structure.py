"""Do both ports have the same leaves: names, shapes, dtypes, count, and the paths that the guide prints?"""

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Comparison, PortOutputs
from equiv.core.case import setting_for
from equiv.core.leaves import MappedLeaf
from equiv.core.results import Finding


def check(comparison: Comparison) -> CheckAnswer:
    """Compare leaf tables. A leaf that one port lacks, or that differs, is refuted here and blocks the other checks."""
    reference, candidate = comparison.reference, comparison.candidate
    own = comparison.one_sided_leaves
    left = {leaf.name: leaf for leaf in reference.table.leaves if leaf.name not in own}
    right = {leaf.name: leaf for leaf in candidate.table.leaves if leaf.name not in own}
    findings = [_leaf_finding(name, left.get(name), right.get(name), comparison) for name in {**left, **right}]
    for observed in (reference, candidate):
        findings += _printed_path_findings(comparison, observed)
    count = sum(leaf.spec.collection == "params" for leaf in right.values())
    summary = f"{len(right)} leaves, {count} of them parameters; {candidate.random} leaves of random state"
    return CheckAnswer(tuple(findings), summary)


def _leaf_finding(name: str, left: MappedLeaf | None, right: MappedLeaf | None, comparison: Comparison) -> Finding:
    place = f"leaf {name}"
    if left is None or right is None:
        lacking = comparison.reference if left is None else comparison.candidate
        return Finding(place, "refuted", note=f"{lacking.table.port} has no such leaf", structure=name)
    for what, one, two in (
        ("shape", left.spec.shape, right.spec.shape),
        ("dtype", left.spec.dtype, right.spec.dtype),
        ("collection", left.spec.collection, right.spec.collection),
    ):
        if one != two:
            note = f"{what} differs"
            return Finding(place, "refuted", reference=str(one), candidate=str(two), note=note, structure=name)
    return Finding(place, "exact", reference=str(left.spec), candidate=str(right.spec), structure=name)


def _printed_path_findings(comparison: Comparison, observed: PortOutputs) -> list[Finding]:
    """Compare the paths and shapes that the guide prints with those of the library, in both directions."""
    port = observed.table.port
    printed = setting_for(comparison.case.printed, port, observed.table.library)
    if printed is None:
        return []
    has = {
        key.path: shape for key, shape in observed.native_paths.items() if observed.table_collection(key) == "params"
    }
    has |= {key.path: shape for key, shape in observed.native_paths.items() if key.path in printed}
    findings = []
    for path in {**printed, **has}:
        place = f"{port} prints {path}"
        expected, got = printed.get(path), has.get(path)
        same = expected is not None and got is not None and tuple(expected) == tuple(got)
        note = "" if same else "the tree that the guide prints differs from the library's"
        findings.append(
            Finding(place, "exact" if same else "refuted", reference=str(expected), candidate=str(got), note=note)
        )
    return findings
