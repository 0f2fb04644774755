"""Are parameters, state and optimizer state the same after each of k train steps?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.comparison.checks.coverage import CheckAnswer, select_compared
from equiv.comparison.numeric.difference import apply_proof, compare_arrays, compare_output, worst_finding
from equiv.comparison.numeric.held_outputs import output_dtype
from equiv.comparison.observation import FRESH_STATE, Comparison, Outputs, PortOutputs
from equiv.comparison.training import (
    describe_idle_slots,
    describe_train_step,
    describe_value_layouts,
    is_training_shared,
    lone_step_findings,
)
from equiv.core.case import KnownDifference
from equiv.core.output_name import OutputName, trained_leaf
from equiv.core.results import Finding
from equiv.programs.probes import widen_array


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare the carry of training after every step, from the probes and from fresh state."""
    kinds = (comparison.reference.train_step, comparison.candidate.train_step)
    lone, remarks = lone_step_findings(comparison.names, kinds), describe_train_step(comparison.case, kinds)
    if not is_training_shared(kinds):
        return CheckAnswer(lone, lone[0].note)
    left, right = (select_compared(side, "train") for side in (comparison.reference, comparison.candidate))
    if not left and not right:
        return None
    known = comparison.known_differences
    findings: list[Finding] = [*lone]
    for output in {**left, **right}:
        findings += _compare_trained(comparison, output, known, output in left, output in right)
    idle = {output: port for output, port in comparison.idle.items() if _is_idle(comparison, output)}
    remarks += describe_idle_slots(comparison.names, idle)
    if any(finding.grade == "refuted" for finding in findings):
        remarks += describe_value_layouts((comparison.reference.table, comparison.candidate.table))
    return CheckAnswer(tuple(findings), lone[0].note if lone else "", remarks)


def _compare_trained(
    comparison: Comparison, output: OutputName, known: Mapping[str, KnownDifference], in_left: bool, in_right: bool
) -> list[Finding]:
    leaf = output.leaf if output.kind == "leaf" else ""
    if leaf in comparison.one_sided_leaves:
        return [_library_only_finding(output, known)]
    if _is_step_count(comparison, output):
        return [_compare_step_counts(comparison, output)] if in_left and in_right else []
    if _is_idle(comparison, output):
        return []
    if not (in_left and in_right):
        lacking = comparison.candidate if in_left else comparison.reference
        return [Finding(str(output), "refuted", note=lacking.describe_lack(output), output=output)]
    if leaf not in known:
        return [compare_output(comparison, output)]
    return [
        compare_output(comparison, output, probes=comparison.ordinary_probes),
        _check_formula(comparison, known[leaf]),
    ]


def _is_idle(comparison: Comparison, output: OutputName) -> bool:
    """Whether one port alone has it, without a trace in what both have; a step count is left out silently."""
    return output in comparison.idle and not _is_step_count(comparison, output)


def _is_step_count(comparison: Comparison, output: OutputName) -> bool:
    """Whether it is a step count of an optimizer or train state: integers that are no variable of the model."""
    if output.kind == "leaf":
        return False
    sides = (comparison.reference, comparison.candidate)
    dtypes = [output_dtype(side.samples["0"].native, output) for side in sides]
    return all(dtype is None or np.issubdtype(dtype, np.integer) for dtype in dtypes)


def _compare_step_counts(comparison: Comparison, output: OutputName) -> Finding:
    """Compare step counts by value: libraries keep them in integers of different dtypes."""
    findings = []
    for probe in comparison.ordinary_probes:
        sides = (comparison.reference, comparison.candidate)
        left, right = (side.samples[probe].native[output].astype("int64") for side in sides)
        findings.append(apply_proof(comparison, compare_arrays(comparison, probe, output, (left, right), None), output))
    return worst_finding(output, findings)


def _library_only_finding(output: OutputName, known: Mapping[str, KnownDifference]) -> Finding:
    """Judge a leaf that only one library has: a known difference of the case must cover it."""
    if formula := next((item for leaf, item in known.items() if output.leaf.startswith(f"{leaf}.")), None):
        note = f"only {formula.backend} has it; {formula.formula}"
        return Finding(str(output), "expected", note=note, output=output)
    note = "only one library has this leaf, and no known difference of the case covers it"
    return Finding(str(output), "refuted", note=note, output=output)


def _check_formula(comparison: Comparison, known: KnownDifference) -> Finding:
    """Check a known difference from fresh state: it must hold at every step, and must still be needed."""
    try:
        return _formula_finding(comparison, known)
    except Exception as error:  # noqa: BLE001 - the formula is the case author's code; the finding says what it raised
        raised = f"{type(error).__name__}: {error}"
        note = f"the formula of the known difference raised {raised}. Fix the formula: {known.formula}"
        output = trained_leaf(known.leaf)
        return Finding(str(output), "error", note=note, output=output)


def _formula_finding(comparison: Comparison, known: KnownDifference) -> Finding:
    differs, other = comparison.reference, comparison.candidate
    if not known.concerns(differs.table.port, differs.table.library):
        differs, other = other, differs
    own_rule = _compare_values(
        comparison, known, _apply_formula(differs, known, known.own), _leaf_values(differs, known)
    )
    formula = _compare_values(
        comparison, known, _apply_formula(differs, known, known.expected), _leaf_values(other, known)
    )
    finding = worst_finding(trained_leaf(known.leaf), [own_rule, formula])
    if finding.grade not in ("exact", "float64", "rounding", "vacuous"):
        return replace(finding, note=f"the known difference does not hold: {known.formula}")
    plain = _compare_values(comparison, known, _leaf_values(differs, known), _leaf_values(other, known))
    if plain.grade != "refuted":
        return replace(
            plain, grade="refuted", note=f"the known difference is stale, both agree without it: {known.formula}"
        )
    return replace(finding, grade="expected", note=known.formula)


NativeAndFloat64 = tuple[np.ndarray, np.ndarray | None]


def _leaf_values(observed: PortOutputs, known: KnownDifference) -> NativeAndFloat64:
    cold, output = observed.samples[FRESH_STATE], trained_leaf(known.leaf)
    return cold.native[output], None if cold.float64 is None else cold.float64[output]


def _apply_formula(observed: PortOutputs, known: KnownDifference, formula: Any) -> NativeAndFloat64:
    """Evaluate a formula in float64 at every step, and cast to the dtype of the leaf for the native run."""

    def at_every_step(outputs: Outputs) -> np.ndarray:
        names = [leaf.name for leaf in observed.table.leaves]
        stacked = {name: outputs[trained_leaf(name)] for name in names}
        in_float64 = {name: widen_array(array) for name, array in stacked.items()}
        steps = len(stacked[known.leaf])
        rows = [formula({name: array[step] for name, array in in_float64.items()}, step + 1) for step in range(steps)]
        return np.stack(rows).astype(stacked[known.leaf].dtype)

    cold = observed.samples[FRESH_STATE]
    return at_every_step(cold.native), None if cold.float64 is None else at_every_step(cold.float64)


def _compare_values(
    comparison: Comparison, known: KnownDifference, left: NativeAndFloat64, right: NativeAndFloat64
) -> Finding:
    float64 = None if left[1] is None or right[1] is None else (left[1], right[1])
    return compare_arrays(comparison, FRESH_STATE, trained_leaf(known.leaf), (left[0], right[0]), float64)
