"""Compare one output of two ports: equal, and how that is known, or refuted, with the worst element. NumPy only.

Budgets are those of `equiv.core.budget`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric import arrays as plain
from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.numeric.blocks import element_responses, finite_difference, largest_finite, measure_blocks
from equiv.comparison.numeric.budgets import Budgets, add_distance, find_responses, output_budgets, over_budget
from equiv.comparison.observation import FRESH_STATE, Comparison, RoundingNoise
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.grades import EQUAL_GRADES, INPUT_CONDITIONS, Grade
from equiv.core.output_name import OutputName
from equiv.core.results import Finding
from equiv.core.verdict import check_grade
from equiv.programs.probes import widen_array
from equiv.programs.prover.proof import FLOAT64_CONSTANTS, Proof

Moved = tuple[float | None, float | None, float]
"""How far an element moves: by the operations of the reference and of the candidate, None where that was not measured,
and by the inputs of the reference."""


@dataclass(frozen=True)
class Difference:
    """The worst element of one output on one probe, in one precision: the one with the largest error over its budget.

    Attributes:
        error: the difference there.
        budget: of that element.
        response: likewise.
        index: of the element.
        reference: its value in the reference.
        candidate: its value in the candidate.
        zero: a gradient up to this size is zero in theory.
        largest: the largest finite value of the output in both ports.
        moved: how far it moves by one ulp in every operation of each port, and by one in every input of the reference;
            empty: not asked.
    """

    error: float
    budget: float
    response: float
    index: tuple[int, ...]
    reference: str
    candidate: str
    zero: float
    largest: float
    moved: Moved | tuple[()] = ()

    @property
    def ratio(self) -> float:
        """Error over budget; infinite where no rounding can explain the error."""
        if self.error == 0:
            return 0.0
        return self.error / self.budget if self.budget > 0 else math.inf


def compare_output(
    comparison: Comparison, output: OutputName, theirs: OutputName | None = None, probes: tuple[str, ...] = ()
) -> Finding:
    """Compare one output of the candidate with the reference's on every probe, and return the worst finding.

    Proved outputs are run too: numbers that contradict a proof are an error of equiv, never a pass.

    Args:
        comparison: the outputs of both ports.
        output: of the reference.
        theirs: the output of the candidate, where it has another name.
        probes: on which probes; empty: on all that have it.
    """
    other = theirs or output
    findings = [
        apply_proof(comparison, _compare_on_probe(comparison, probe, output, other), other)
        for probe in probes or comparison.reference.samples
        if output in comparison.reference.samples[probe].native
    ]
    return worst_finding(output, findings)


ROUNDS_MORE = "the same function, but the candidate rounds more than its dtype explains"


NOT_HERE = "the same function where a condition holds that does not hold here, or the candidate rounds more"


def apply_proof(comparison: Comparison, finding: Finding, other: OutputName) -> Finding:
    """Give a numeric finding the grade of its proof, if there is one; `other` is the candidate's output."""
    proof = _proof_of(comparison, finding.output, other, finding.probe)
    if proof is None or finding.grade == "error" or (finding.grade == "refuted" and finding.error is None):
        return finding
    if finding.grade != "refuted":
        unneeded = (comparison.reference.why_no_float64, comparison.candidate.why_no_float64)
        note = "" if finding.note in unneeded else finding.note
        return replace(finding, grade=proof.grade, note=note, rewrites=proof.rewrites)
    if doubtful := sorted(INPUT_CONDITIONS.intersection(proof.rewrites)):
        # Indices and masks are what the probes make them: there a condition does not hold, and the numbers count.
        return replace(finding, note=f"{NOT_HERE}: {', '.join(doubtful)}", rewrites=proof.rewrites)
    if proof.grade == "proved modulo" and finding.precision == "native":
        # The same in real numbers, as the proof has it: what is left is how each port rounds.
        return replace(finding, note=ROUNDS_MORE, rewrites=proof.rewrites)
    return replace(
        finding, grade="error", note="proved equal, yet the numbers differ: an error of equiv, please report"
    )


def _proof_of(comparison: Comparison, output: OutputName | None, other: OutputName, probe: str) -> Proof | None:
    return None if output is None else comparison.proofs.get((output, other, probe == FRESH_STATE))


def worst_finding(output: OutputName, findings: list[Finding]) -> Finding:
    """Select the deciding finding: the weakest grade, and among those the largest ratio."""
    if not findings:
        return Finding(str(output), "vacuous", note="no probe reaches it", output=output)
    grade = check_grade(tuple(findings))
    return max((item for item in findings if item.grade == grade), key=_severity)


def _severity(finding: Finding) -> float:
    """Give the ratio; a refusal without one (shape, dtype, not finite, no budget) is worse than any number."""
    return (finding.ratio or 0.0) if finding.ratio is not None or finding.grade in EQUAL_GRADES else math.inf


def _compare_on_probe(comparison: Comparison, probe: str, output: OutputName, other: OutputName) -> Finding:
    if output == other and (probe, output) in comparison.folded:
        return comparison.folded[probe, output]
    ours, theirs = comparison.reference.samples[probe], comparison.candidate.samples[probe]
    if other not in theirs.native:
        note = "the candidate does not return it"
        return Finding(str(output), "refuted", probe=probe, note=note, output=output)
    decided = is_decided_natively(comparison, output, probe, other)
    float64 = None if decided else plain.float64_pair(ours, theirs, output, other)
    proved = is_proved_in_real_numbers(comparison, output, probe, other)
    return compare_arrays(comparison, probe, output, (ours.native[output], theirs.native[other]), float64, proved)


def is_proved_in_real_numbers(comparison: Comparison, output: OutputName, probe: str, other: OutputName) -> bool:
    """Whether it is proved to be the same function in real numbers: then even rounding that leaves no digit is one."""
    proof = _proof_of(comparison, output, other, probe)
    return proof is not None and proof.grade == "proved modulo" and not INPUT_CONDITIONS.intersection(proof.rewrites)


def is_decided_natively(comparison: Comparison, output: OutputName, probe: str, other: OutputName) -> bool:
    """Whether no float64 run is looked at: what is proved as it stands may share a constant that it has rounded."""
    proof = _proof_of(comparison, output, other, probe)
    return proof is not None and FLOAT64_CONSTANTS not in proof.rewrites


def compare_arrays(
    comparison: Comparison,
    probe: str,
    output: OutputName,
    native: ArrayPair,
    float64: ArrayPair | None,
    proved: bool = False,
) -> Finding:
    """Compare native and float64 arrays on one probe, with the budget of `output`.

    What the reference's response to its inputs does not explain is compared once more with what each port's operations
    round, where that was measured. It must leave something to compare, a budget below the largest value, but where the
    output is `proved` the same in real numbers, or where it is nothing but rounding: a gradient that is zero in theory.
    """
    strict = replace(comparison, own_rounding=(None, None))
    finding = _compare_values(strict, probe, output, native, float64)
    if finding.grade == "refuted" and finding.error is not None and comparison.own_rounding != (None, None):
        again = _compare_values(comparison, probe, output, native, float64)
        most = max(map(largest_finite, float64 or native))
        if proved or (float64 is not None and _is_zero_in_theory(comparison, probe, output, float64)):
            most = math.inf
        most = limit_budget(comparison, probe, output, again.precision == "float64", most)
        moved: Moved | tuple[()] = ()
        if again.grade in EQUAL_GRADES:
            in_float64 = again.precision == "float64"
            moved = find_moved(comparison, probe, output, float64 or native, again.index, in_float64)
        finding = settle_by_own_rounding(comparison, finding, again, most, moved)
    return replace(finding, place=str(output), probe=probe, output=output)


def _is_zero_in_theory(comparison: Comparison, probe: str, output: OutputName, float64: ArrayPair) -> bool:
    """Whether a gradient is noise next to that of the whole model in float64, as that of a key's bias in attention."""
    if output.kind != "gradient":
        return False
    zero = output_budgets(comparison, probe, output, float64, in_float64=True).zero
    return max(map(largest_finite, float64)) <= zero


FEW_RUNS_MARGIN = 16
"""How far below the largest value a budget of few runs has to be: that of all runs could leave nothing to compare."""


def limit_budget(comparison: Comparison, probe: str, output: OutputName, in_float64: bool, most: float) -> float:
    """What a budget of the ports' own rounding has to be below, of which `most` is below what all runs give."""
    is_few = any(one is not None and (probe, output, in_float64) in one.few for one in comparison.own_rounding)
    return most / FEW_RUNS_MARGIN if is_few else most


def settle_by_own_rounding(
    comparison: Comparison, finding: Finding, again: Finding, most: float, moved: Moved | tuple[()]
) -> Finding:
    """Choose between what is refuted and what is found with budgets of the ports' own rounding.

    Args:
        comparison: names the ports.
        finding: refuted by what the inputs explain.
        again: the same with budgets of both ports' operations.
        most: the budget has to be below this.
        moved: of the element of `again`, where it is equal.
    """
    if again.grade in EQUAL_GRADES and (again.budget or 0.0) < most and moved:
        return replace(again, grade="rounding", note=_describe_own_rounding(comparison, moved))
    return again if again.grade == "refuted" else finding


def find_moved(
    comparison: Comparison,
    probe: str,
    output: OutputName,
    arrays: ArrayPair,
    index: tuple[int, ...],
    in_float64: bool,
    largest: tuple[float, float] | None = None,
) -> Moved:
    """How far one element moves by rounding.

    Args:
        comparison: of which the noise is used.
        probe: the probe.
        output: the output.
        arrays: its value in both ports, or a part of it.
        index: of the element in them.
        in_float64: whether they are those of the float64 runs.
        largest: the largest finite magnitude of the whole output in each port; None: the arrays are the whole.
    """
    most = largest or (largest_finite(arrays[0]), largest_finite(arrays[1]))

    def at(noise: RoundingNoise, side: int) -> float:
        element = arrays[side][index].reshape(1)
        return float(element_responses(find_responses(noise, probe, output, in_float64), element, most[side])[0])

    first, second = (None if noise is None else at(noise, side) for side, noise in enumerate(comparison.own_rounding))
    return first, second, at(comparison.noise, 0)


def _describe_own_rounding(comparison: Comparison, moved: Moved) -> str:
    *own, by_inputs = moved
    named = list(zip(comparison.names, own, strict=True))
    measured = [f"{name} by {one:.2g}" for name, one in named if one is not None]
    unknown = [name for name, one in named if one is None]
    return (
        f"the ports round differently: one ulp in every operation moves this in {' and in '.join(measured)}, "
        f"one in every input of {comparison.names[0]} by {by_inputs:.2g}"
        f"{f'; the operations of {unknown[0]} were not measured' if unknown else ''}"
    )


def _compare_values(
    comparison: Comparison, probe: str, output: OutputName, native: ArrayPair, float64: ArrayPair | None
) -> Finding:
    """Compare native and float64 arrays; the finding does not name the output and the probe yet."""
    left, right = native
    if refusal := plain.type_mismatch(left, right):
        return refusal
    for pair in (native, *((float64,) if float64 else ())):
        if refusal := plain.nonfinite_finding(pair, comparison.names):
            return refusal
    if str(left.dtype) not in INEXACT_DTYPES:
        return plain.compare_integers(left, right)
    own = output_budgets(comparison, probe, output, native, in_float64=False)
    if float64 is None:
        return make_finding(output, worst_element(native, own), None, comparison)
    judged = worst_element(float64, output_budgets(comparison, probe, output, float64, in_float64=True))
    # The reference's own distance from its float64 run is rounding too, where it is unstable.
    own = add_distance(own, measure_blocks(left, [float64[0]]), left)
    return make_finding(output, worst_element(native, own), judged, comparison)


def worst_element(arrays: ArrayPair, budgets: Budgets) -> Difference:
    """Find the element with the largest error over its budget."""
    left, right = arrays
    if not left.size:
        return Difference(0.0, 0.0, 0.0, (), "", "", budgets.zero, 0.0)
    difference = finite_difference(widen_array(left), widen_array(right))
    index = np.unravel_index(int(np.argmax(over_budget(difference, budgets.elements))), difference.shape)
    return Difference(
        error=float(difference[index]),
        budget=float(budgets.elements[index]),
        response=float(budgets.responses[index]),
        index=tuple(int(axis) for axis in index),
        reference=plain.element_text(left[index]),
        candidate=plain.element_text(right[index]),
        zero=budgets.zero,
        largest=max(largest_finite(left), largest_finite(right)),
    )


def make_finding(output: OutputName, native: Difference, float64: Difference | None, comparison: Comparison) -> Finding:
    """Grade the worst elements of the native and the float64 run; output and probe are not named yet."""
    judge = float64 or native
    grade, note = _grade(native, float64, comparison)
    if grade == "refuted" and float64 is not None and float64.ratio <= 1:
        judge = native
    return Finding(
        "",
        grade,
        error=judge.error,
        budget=judge.budget,
        ratio=judge.ratio if math.isfinite(judge.ratio) else None,
        precision="float64" if judge is float64 else "native",
        reference=judge.reference,
        candidate=judge.candidate,
        index=judge.index,
        note=note,
        response=judge.response,
        depth=comparison.noise.depth.get(output),
        factor=comparison.case.budget_factor,
    )


def _grade(native: Difference, float64: Difference | None, comparison: Comparison) -> tuple[Grade, str]:
    judge = float64 or native
    if max(native.largest, judge.largest) == 0:
        return "vacuous", "all zero in both ports: nothing is compared"
    if judge.largest <= judge.zero and native.largest <= native.zero:
        return "unidentifiable", "zero in theory: what is left is noise relative to the gradient of the whole model"
    if judge.ratio > 1:
        return "refuted", "no rounding explains this difference"
    if native.ratio > 1:
        return "refuted", ROUNDS_MORE
    if native.error == 0:
        return "exact", ""
    if float64 is not None:
        return "float64", ""
    return "rounding", comparison.reference.why_no_float64 or comparison.candidate.why_no_float64
