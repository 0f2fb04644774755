"""Do k train steps leave the same parameters, state and optimizer state, after each of them?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.compare.checks.coverage import places, summary
from equiv.compare.numeric.difference import compare, compare_arrays, with_proof, worst
from equiv.compare.observation import Comparison, Observed
from equiv.core.case import KnownDifference
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import weakest

NAME = "train"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare the carry of training after every step, from the probes and from fresh state."""

    def wanted(program: str, _: str) -> bool:
        return program == "train"

    left, right = places(comparison.reference, wanted), places(comparison.candidate, wanted)
    if not left and not right:
        return None
    pair = {comparison.reference.table.backend, comparison.candidate.table.backend}
    known = {known.leaf: known for known in comparison.case.known_differences if known.backend in pair}
    findings: list[Finding] = []
    for place in {**left, **right}:
        findings += _place(comparison, place.removeprefix("train: "), known, place in left, place in right)
    candidate = comparison.candidate.table.backend
    return CheckResult(NAME, candidate, weakest(tuple(findings)), summary(tuple(findings)), tuple(findings))


def _place(
    comparison: Comparison, name: str, known: Mapping[str, KnownDifference], in_left: bool, in_right: bool
) -> list[Finding]:
    place = f"train: {name}"
    own = {leaf.name for side in (comparison.reference, comparison.candidate) for leaf in side.table.leaves if leaf.own}
    if name in own:
        return [_covered(comparison, name, known)]
    if _bookkeeping(comparison, name):
        return [_counts(comparison, place)] if in_left and in_right else []
    if not (in_left and in_right):
        lacking = comparison.candidate if in_left else comparison.reference
        return [Finding(place, "refuted", note=f"{lacking.table.backend} does not train it")]
    if name not in known:
        return [compare(comparison, place)]
    return [compare(comparison, place, probes=comparison.warm), _formula(comparison, known[name])]


def _bookkeeping(comparison: Comparison, name: str) -> bool:
    """Step counts of an optimizer or train state: whole numbers that are no variable of the model."""
    if any(leaf.name == name for leaf in comparison.reference.table.leaves):
        return False
    samples = [side.samples["0"].native.get(f"train: {name}") for side in (comparison.reference, comparison.candidate)]
    return all(array is None or np.issubdtype(array.dtype, np.integer) for array in samples)


def _counts(comparison: Comparison, place: str) -> Finding:
    """Step counts by value: libraries keep them in integers of different kinds."""
    findings = []
    for probe in comparison.warm:
        sides = (comparison.reference, comparison.candidate)
        left, right = (side.samples[probe].native[place].astype("int64") for side in sides)
        findings.append(with_proof(comparison, compare_arrays(comparison, probe, place, (left, right), None), place))
    return worst(place, findings)


def _covered(comparison: Comparison, name: str, known: Mapping[str, KnownDifference]) -> Finding:
    """A leaf that only one library has: a formula must speak of it."""
    place = f"train: {name}"
    if formula := next((item for leaf, item in known.items() if name.startswith(f"{leaf}.")), None):
        return Finding(place, "expected", note=f"only {formula.backend} has it; {formula.formula}")
    return Finding(
        place, "refuted", note="only one library has this leaf, and no known difference of the case says what it does"
    )


def _formula(comparison: Comparison, known: KnownDifference) -> Finding:
    """A known difference from fresh state: it must hold at every step, and must still be needed."""
    try:
        return _held(comparison, known)
    except Exception as error:  # noqa: BLE001 - the formula is the case author's code; the finding says what it raised
        note = f"the formula of the known difference raised {type(error).__name__}: {error}. Mend it: {known.formula}"
        return Finding(f"train: {known.leaf}", "error", note=note)


def _held(comparison: Comparison, known: KnownDifference) -> Finding:
    place = f"train: {known.leaf}"
    differs, other = comparison.reference, comparison.candidate
    if differs.table.backend != known.backend:
        differs, other = other, differs
    own_rule = _against(comparison, known, _apply(differs, known, known.own), _leaf(differs, known))
    formula = _against(comparison, known, _apply(differs, known, known.expected), _leaf(other, known))
    finding = worst(place, [own_rule, formula])
    if finding.grade not in ("exact", "float64", "rounding", "vacuous"):
        return replace(finding, note=f"the known difference does not hold: {known.formula}")
    plain = _against(comparison, known, _leaf(differs, known), _leaf(other, known))
    if plain.grade != "refuted":
        return replace(
            plain, grade="refuted", note=f"the known difference is stale, both agree without it: {known.formula}"
        )
    return replace(finding, grade="expected", note=known.formula)


Pair = tuple[np.ndarray, np.ndarray | None]


def _leaf(observed: Observed, known: KnownDifference) -> Pair:
    cold, place = observed.samples["cold"], f"train: {known.leaf}"
    return cold.native[place], None if cold.lifted is None else cold.lifted[place]


def _apply(observed: Observed, known: KnownDifference, formula: Any) -> Pair:
    """A formula evaluated in float64 at every step, in the dtype of the leaf for the native run."""

    def at_every_step(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        names = [leaf.name for leaf in observed.table.leaves]
        stacked = {name: outputs[f"train: {name}"] for name in names}
        wide = {name: array.astype("float64") for name, array in stacked.items()}
        steps = len(stacked[known.leaf])
        rows = [formula({name: array[step] for name, array in wide.items()}, step + 1) for step in range(steps)]
        return np.stack(rows).astype(stacked[known.leaf].dtype)

    cold = observed.samples["cold"]
    return at_every_step(cold.native), None if cold.lifted is None else at_every_step(cold.lifted)


def _against(comparison: Comparison, known: KnownDifference, left: Pair, right: Pair) -> Finding:
    lifted = None if left[1] is None or right[1] is None else (left[1], right[1])
    return compare_arrays(comparison, "cold", f"train: {known.leaf}", (left[0], right[0]), lifted)
