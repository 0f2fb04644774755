"""Detection: compare the outputs of a mutated program with those of the candidate itself, as a run would.

Both run in one precision on the probes of a run, with the budget of the reference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiv.comparison.numeric.difference import compare_arrays
from equiv.comparison.observation import Comparison, PortOutputs, RoundingNoise, Sample
from equiv.comparison.selfcheck.eager_port import EagerPort, StepOutputs, all_outputs
from equiv.core.output_name import BEGIN, STEP, OutputName, ProgramName
from equiv.core.results import Finding
from equiv.core.selfcheck_results import Outcome
from equiv.programs.built_case import BuiltCase
from equiv.programs.probes import perturb_by_ulp
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.prover.value_numbering import Numbering, number_program

NOTHING_MOVES = "no output moves on any probe"
"""Reason for a fault that no probe shows."""

NUDGED_RUNS = 8
"""Number of runs, with every input moved by an ulp, on which a difference below the budget must persist."""


ProvedNames = Mapping[OutputName, str]
"""Output to the prover's name of its computation."""


@dataclass(frozen=True, eq=False)
class Detector:
    """The candidate as it is, with which its mutated programs are compared.

    Attributes:
        port: the candidate.
        comparison: of the candidate with itself, with the reference's budget.
        base: the outputs of the candidate itself.
        names: program and rewrites to the names of its outputs.
    """

    port: EagerPort
    comparison: Comparison
    base: Mapping[str, StepOutputs]
    names: Mapping[ProgramName, tuple[ProvedNames, ProvedNames]]

    def original(self, mutant: Program) -> Program:
        """Return the candidate's own program of that name."""
        return next(part for part in all_programs(self.port.programs) if part.name == mutant.name)

    def same(self, mutant: Program) -> bool:
        """Whether a program is proved to be the same computation, without rewrites."""
        return self.names[mutant.name][0] == output_names(mutant)


def open_detector(port: EagerPort, built_case: BuiltCase, noise: RoundingNoise) -> Detector:
    """Run a candidate as it is.

    Args:
        port: the candidate.
        built_case: the case.
        noise: of the reference.
    """
    base = all_outputs(port)
    samples = {
        probe: Sample({name: array for outputs in steps.values() for name, array in outputs.items()}, None)
        for probe, steps in base.items()
    }
    seen = PortOutputs(port.traced.table, 0, samples, {}, {})
    names = {
        program.name: (output_names(program), output_names(program, modulo=True))
        for program in all_programs(port.programs)
    }
    return Detector(port, Comparison(built_case.case, seen, seen, noise), base, names)


def output_names(program: Program, modulo: bool = False) -> ProvedNames:
    """Map outputs to names: equal where two computations are proved to be the same, `modulo` named rewrites."""
    numbering = Numbering(Algebra(frozenset(CONDITIONS) if modulo else frozenset[str]()))
    return {output: value.name for output, value in number_program(program, numbering).items()}


def detect(detector: Detector, mutant: Program, port: EagerPort | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """Say where a mutated program is detected; if nowhere, return an empty dictionary and all findings.

    Args:
        detector: the candidate as it is.
        mutant: the mutated program.
        port: the port that it is run in; None: all other programs are the candidate's own.
    """
    runs = port or detector.port
    unnoticed: list[Finding] = []
    for probe in runs.probe_names(mutant):
        for step, outputs in enumerate(runs.all(mutant, probe)):
            base = detector.base[probe][STEP if mutant.name == BEGIN else mutant.name, step]
            pairs = {name: (base[name], array) for name, array in outputs.items()}
            findings = [compare_arrays(detector.comparison, probe, name, pair, None) for name, pair in pairs.items()]
            if refuted := [finding for finding in findings if finding.grade == "refuted"]:
                worst = max(refuted, key=lambda finding: math.inf if finding.ratio is None else finding.ratio)
                where = {
                    "place": worst.place,
                    "probe": probe,
                    "ratio": worst.ratio,
                    "check": worst.output.check if worst.output else "",
                }
                return where, []
            unnoticed += [finding for finding in findings if finding.grade not in ("unidentifiable", "vacuous")]
    return {}, unnoticed


def explain_undetected(
    detector: Detector, mutant: Program, unnoticed: Sequence[Finding], port: EagerPort | None = None
) -> tuple[Outcome, str]:
    """Say why a mutated program is not detected; arguments as of `detect`, with its findings."""
    for modulo, way in enumerate(("", ", modulo named rewrites")):
        if detector.names[mutant.name][modulo] == output_names(mutant, modulo=bool(modulo)):
            return "equivalent", f"proved to be the same computation{way}"
    finding = max(unnoticed, key=lambda finding: finding.error or 0.0, default=None)
    if finding is None or not finding.error:
        return "unidentifiable", NOTHING_MOVES
    moved = f"moves {finding.place} by {finding.error:.1e}"
    if finding.error > (finding.response or 0.0) and _is_systematic(detector, mutant, finding, port or detector.port):
        return "survived", f"{moved}, within the budget of {finding.budget:.1e}"
    return "unidentifiable", f"{moved}, changing with the rounding: the same in real numbers on every probe"


def _is_systematic(detector: Detector, mutant: Program, finding: Finding, port: EagerPort) -> bool:
    """Whether the difference keeps its sign and size when rounding changes: every input moves by an ulp of float32."""
    own, original = detector.port, detector.original(mutant)
    probe, output = own.probes[finding.probe], finding.output
    assert output is not None  # `compare_arrays` names it

    def signed_difference(seed: int) -> np.ndarray:
        probes = {probe.name: perturb_by_ulp(probe, 1000 + seed, "float32") if seed else probe}
        mutants = replace(port, probes=probes).all(mutant, probe.name)
        runs = zip(mutants, replace(own, probes=probes).all(original, probe.name), strict=True)
        return np.stack([one[output] - other[output] for one, other in runs]).reshape(-1)

    first = signed_difference(0)
    worst = np.argmax(np.abs(first))
    return all(0.5 < signed_difference(seed)[worst] / first[worst] < 2 for seed in range(1, NUDGED_RUNS))
