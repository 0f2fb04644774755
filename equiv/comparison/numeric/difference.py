"""Compare one output of two ports: equal, and how that is known, or refuted, with the worst element. NumPy only.

Budgets are those of `equiv.core.budget`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.numeric import arrays as plain
from equiv.comparison.numeric.arrays import ArrayPair
from equiv.comparison.observation import FRESH_STATE, Comparison, Sample
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.grades import EQUAL_GRADES, Grade
from equiv.core.output_name import OutputName
from equiv.core.results import Finding
from equiv.core.verdict import check_grade
from equiv.programs.probes import ulp
from equiv.programs.prover.proof import FLOAT64_CONSTANTS, Proof


@dataclass(frozen=True)
class Difference:
    """The difference of one output on one probe, in one precision."""

    error: float
    budget: float
    index: tuple[int, ...]
    reference: str
    candidate: str
    response: float
    zero: float
    largest: float

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


def apply_proof(comparison: Comparison, finding: Finding, other: OutputName) -> Finding:
    """Give a numeric finding the grade of its proof, if there is one; `other` is the candidate's output."""
    proof = _proof_of(comparison, finding.output, other, finding.probe)
    if proof is None or finding.grade == "error" or (finding.grade == "refuted" and finding.error is None):
        return finding
    if finding.grade != "refuted":
        return replace(finding, grade=proof.grade, note="", rewrites=proof.rewrites)
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
    ours, theirs = comparison.reference.samples[probe], comparison.candidate.samples[probe]
    if other not in theirs.native:
        note = "the candidate does not return it"
        return Finding(str(output), "refuted", probe=probe, note=note, output=output)
    proof = _proof_of(comparison, output, other, probe)
    # What is proved as the ports compute it needs no float64 run, which may have rounded a constant that they share.
    decided = proof is not None and FLOAT64_CONSTANTS not in proof.rewrites
    float64 = None if decided else plain.float64_pair(ours, theirs, output, other)
    return compare_arrays(comparison, probe, output, (ours.native[output], theirs.native[other]), float64)


def compare_arrays(
    comparison: Comparison, probe: str, output: OutputName, native: ArrayPair, float64: ArrayPair | None
) -> Finding:
    """Compare native and float64 arrays on one probe, with the budget of `output`."""
    finding = _compare_values(comparison, probe, output, native, float64)
    return replace(finding, place=str(output), probe=probe, output=output)


def _compare_values(
    comparison: Comparison, probe: str, output: OutputName, native: ArrayPair, float64: ArrayPair | None
) -> Finding:
    """Compare native and float64 arrays; the finding does not name the output and the probe yet."""
    left, right = native
    if refusal := plain.type_mismatch(left, right):
        return refusal
    for one, two in (native, float64 or native):
        nonfinite = (plain.count_nonfinite(one), plain.count_nonfinite(two))
        if nonfinite != (0, 0):
            return plain.nonfinite_finding((one, two), comparison.names)
    if str(left.dtype) not in FLOAT_DTYPES:
        return plain.compare_integers(left, right)
    own = _measure_difference(comparison, probe, output, left, right, in_float64=False)
    if float64 is None:
        return _make_finding(output, own, None, comparison)
    judged = _measure_difference(comparison, probe, output, *float64, in_float64=True)
    # The reference's own distance from its float64 run is rounding too, where it is unstable.
    rounded = float(np.max(np.abs(left.astype("float64") - float64[0]), initial=0.0))
    return _make_finding(output, replace(own, budget=max(own.budget, 2 * rounded)), judged, comparison)


def _measure_difference(
    comparison: Comparison, probe: str, output: OutputName, left: np.ndarray, right: np.ndarray, in_float64: bool
) -> Difference:
    a, b = left.astype("float64"), right.astype("float64")
    difference = np.abs(a - b)
    index = np.unravel_index(int(np.argmax(difference)), difference.shape) if difference.size else ()
    noise = comparison.noise.float64 if in_float64 else comparison.noise.native
    size = ulp(left.dtype)
    growth = rounding_growth(comparison.noise.depth.get(output, 1), comparison.case.budget_factor)
    scale = float(np.max(np.abs(a), initial=0.0))
    response = rounding_response(noise.get(probe, {}).get(output, 0.0), size, scale)
    whole = _model_gradient_scale(comparison.reference.samples[probe], output, in_float64)
    return Difference(
        error=float(np.max(difference, initial=0.0)),
        budget=response * growth,
        index=tuple(int(axis) for axis in index),
        reference=_element_text(left, index),
        candidate=_element_text(right, index),
        response=response,
        zero=whole * size * growth,
        largest=max(scale, float(np.max(np.abs(b), initial=0.0))),
    )


def _element_text(array: np.ndarray, index: tuple[np.intp, ...]) -> str:
    return f"{float(array[index]):.9g}" if array.size else ""


def _model_gradient_scale(sample: Sample, output: OutputName, in_float64: bool) -> float:
    """The largest gradient of the whole model: a gradient that is zero in theory is noise relative to it."""
    if output.kind != "gradient":
        return 0.0
    outputs = sample.float64 if in_float64 and sample.float64 is not None else sample.native
    return max(
        float(np.max(np.abs(array), initial=0.0))
        for other, array in outputs.items()
        if other.kind == "gradient" and other.program == output.program
    )


def _make_finding(
    output: OutputName, native: Difference, float64: Difference | None, comparison: Comparison
) -> Finding:
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
