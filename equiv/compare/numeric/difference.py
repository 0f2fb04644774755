"""Two ports' values of one output: equal, and how that is known, or refuted, with the worst element. Numpy only.

The budget is derived, never typed by hand:

    budget = response * sqrt(depth) * LEVEL

`response` is how far the reference itself moves when each of its inputs moves by one unit in the last place, in the
same precision; `depth` counts the rounded operations in a row, whose errors add up like the square root of their
number; `LEVEL` is the factor at which that bound fails by chance once in a thousand million
(Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41(5), 2019, thm 2.4).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from equiv.compare.numeric import arrays as plain
from equiv.compare.observation import Comparison, Sample
from equiv.core.batch_spec import FLOATS
from equiv.core.grades import EQUAL, Grade
from equiv.core.results import LEVEL, Finding
from equiv.core.verdict import weakest
from equiv.programs.probes import ulp
from equiv.programs.prover.proof import WIDE


@dataclass(frozen=True)
class Difference:
    """One precision's view of one output on one probe."""

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


def compare(comparison: Comparison, place: str, candidate_place: str = "", probes: tuple[str, ...] = ()) -> Finding:
    """One output of the candidate against the reference's, on every probe; the worst probe speaks.

    What is proved is run all the same: numbers that contradict a proof are an error of ours, never a pass.

    Args:
        comparison: both ports as observed.
        place: `program: output` in the reference.
        candidate_place: the same in the candidate, where it differs.
        probes: on which probes; empty: on all that have it.
    """
    findings = [
        with_proof(comparison, _on_probe(comparison, probe, place, candidate_place or place), candidate_place or place)
        for probe in probes or comparison.reference.samples
        if place in comparison.reference.samples[probe].native
    ]
    return worst(place, findings)


def with_proof(comparison: Comparison, finding: Finding, other: str) -> Finding:
    """A finding by numbers, with the grade of its proof where there is one; `other` is the candidate's place."""
    proof = comparison.proofs.get((finding.place, other, finding.probe == "cold"))
    if proof is None or finding.grade == "error" or (finding.grade == "refuted" and finding.error is None):
        return finding
    if finding.grade != "refuted":
        return replace(finding, grade=proof.grade, note="; ".join(proof.rewrites))
    if proof.grade == "proved modulo" and finding.precision == "native":
        return replace(finding, note=f"{finding.note}; proved the same function modulo {', '.join(proof.rewrites)}")
    return replace(
        finding, grade="error", note="proved equal, yet the numbers differ: an error of equiv, please report"
    )


def worst(place: str, findings: list[Finding]) -> Finding:
    """The finding that decides: the weakest grade, and among those the largest ratio."""
    if not findings:
        return Finding(place, "vacuous", note="no probe reaches it")
    grade = weakest(tuple(findings))
    deciding = max((item for item in findings if item.grade == grade), key=_severity)
    return replace(deciding, place=place)


def _severity(finding: Finding) -> float:
    """The ratio; a refusal without one (shape, dtype, not finite, no budget) is worse than any number."""
    return (finding.ratio or 0.0) if finding.ratio is not None or finding.grade in EQUAL else math.inf


def _on_probe(comparison: Comparison, probe: str, place: str, other: str) -> Finding:
    ours, theirs = comparison.reference.samples[probe], comparison.candidate.samples[probe]
    if other not in theirs.native:
        return Finding(place, "refuted", probe=probe, note="the candidate does not give it")
    lifted = None
    proof = comparison.proofs.get((place, other, probe == "cold"))
    # What is proved as the ports compute it needs no float64 run, which may have rounded a constant that they share.
    decided = proof is not None and WIDE not in proof.rewrites
    if (
        not decided
        and ours.lifted is not None
        and theirs.lifted is not None
        and place in ours.lifted
        and other in theirs.lifted
    ):
        lifted = ours.lifted[place], theirs.lifted[other]
    return compare_arrays(comparison, probe, place, (ours.native[place], theirs.native[other]), lifted)


def compare_arrays(
    comparison: Comparison,
    probe: str,
    place: str,
    native: tuple[np.ndarray, np.ndarray],
    lifted: tuple[np.ndarray, np.ndarray] | None,
) -> Finding:
    """Two arrays, native and lifted, on one probe, with the budget of `place`."""
    left, right = native
    if refusal := plain.unlike(left, right):
        return replace(refusal, place=place, probe=probe)
    for one, two in (native, lifted or native):
        nonfinite = (plain.nonfinite(one), plain.nonfinite(two))
        if nonfinite != (0, 0):
            return plain.with_nonfinite(place, probe, (one, two), comparison.names)
    if str(left.dtype) not in FLOATS:
        return plain.whole_numbers(place, probe, left, right)
    own = _difference(comparison, probe, place, left, right, lifted=False)
    if lifted is None:
        return _judge(place, probe, own, None, comparison)
    wide = _difference(comparison, probe, place, *lifted, lifted=True)
    # The reference's own distance from its float64 run is rounding too, where it is unstable.
    rounded = float(np.max(np.abs(left.astype("float64") - lifted[0]), initial=0.0))
    return _judge(place, probe, replace(own, budget=max(own.budget, 2 * rounded)), wide, comparison)


def _difference(
    comparison: Comparison, probe: str, place: str, left: np.ndarray, right: np.ndarray, lifted: bool
) -> Difference:
    a, b = left.astype("float64"), right.astype("float64")
    apart = np.abs(a - b)
    index = np.unravel_index(int(np.argmax(apart)), apart.shape) if apart.size else ()
    noise = comparison.noise.lifted if lifted else comparison.noise.native
    size = ulp(left.dtype)
    growth = math.sqrt(max(1, comparison.noise.depth.get(place, 1))) * LEVEL * comparison.case.budget_factor
    scale = float(np.max(np.abs(a), initial=0.0))
    # One ulp of the leaf's largest value is the least that any rounding does.
    response = max(noise.get(probe, {}).get(place, 0.0), size * scale)
    whole = _whole_scale(comparison.reference.samples[probe], place, lifted)
    return Difference(
        error=float(np.max(apart, initial=0.0)),
        budget=response * growth,
        index=tuple(int(axis) for axis in index),
        reference=_shown(left, index),
        candidate=_shown(right, index),
        response=response,
        zero=whole * size * growth,
        largest=max(scale, float(np.max(np.abs(b), initial=0.0))),
    )


def _shown(array: np.ndarray, index: tuple[np.intp, ...]) -> str:
    return f"{float(array[index]):.9g}" if array.size else ""


def _whole_scale(sample: Sample, place: str, lifted: bool) -> float:
    """The largest gradient of the whole model: a gradient that is zero in theory is noise beside it."""
    program, _, output = place.partition(": ")
    if not output.startswith("gradient "):
        return 0.0
    outputs = sample.lifted if lifted and sample.lifted is not None else sample.native
    prefix = f"{program}: gradient "
    return max(float(np.max(np.abs(array), initial=0.0)) for name, array in outputs.items() if name.startswith(prefix))


def _judge(place: str, probe: str, native: Difference, lifted: Difference | None, comparison: Comparison) -> Finding:
    judge = lifted or native
    grade, note = _grade(native, lifted, comparison)
    if grade == "refuted" and lifted is not None and lifted.ratio <= 1:
        judge = native
    return Finding(
        place,
        grade,
        error=judge.error,
        budget=judge.budget,
        ratio=judge.ratio if math.isfinite(judge.ratio) else None,
        precision="float64" if judge is lifted else "native",
        reference=judge.reference,
        candidate=judge.candidate,
        index=judge.index,
        probe=probe,
        note=note,
        response=judge.response,
        depth=comparison.noise.depth.get(place),
        factor=comparison.case.budget_factor,
    )


def _grade(native: Difference, lifted: Difference | None, comparison: Comparison) -> tuple[Grade, str]:
    judge = lifted or native
    if max(native.largest, judge.largest) == 0:
        return "vacuous", "all zero in both ports: nothing is compared"
    if judge.largest <= judge.zero and native.largest <= native.zero:
        return "unidentifiable", "zero in theory: what is left is noise beside the gradient of the whole model"
    if judge.ratio > 1:
        return "refuted", "no rounding explains this difference"
    if native.ratio > 1:
        return "refuted", "the same function, but the candidate rounds more than its dtype explains"
    if native.error == 0:
        return "exact", ""
    if lifted is not None:
        return "float64", ""
    return "rounding", comparison.reference.unlifted or comparison.candidate.unlifted
