"""Would a run notice? What a changed program gives, held against what the candidate itself gives.

Both run in one precision on the probes of a run; the budget is how far rounding moves the reference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiv.compare.numeric.difference import compare_arrays
from equiv.compare.observation import Comparison, Noise, Observed, Sample
from equiv.compare.selfcheck.eager_trial import Trial, Turns, everything
from equiv.core.results import Finding
from equiv.core.selfcheck_results import Outcome
from equiv.programs.built_case import Workshop
from equiv.programs.probes import nudged
from equiv.programs.program import Program
from equiv.programs.prover.algebra import CONDITIONS, Algebra
from equiv.programs.prover.prove import every
from equiv.programs.prover.value_numbering import Numbering, number_program

UNMOVED = "no output moves on any probe"
"""Why nothing can be told, where that is so."""


AGAIN = 8
"""How often a difference below the budget is looked at again, with every input moved a little."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """What changed programs of one candidate are held against.

    Attributes:
        trial: the candidate.
        comparison: with the reference's budget.
        base: what the candidate itself gives.
        names: program and rewrites to the names of its outputs.
    """

    trial: Trial
    comparison: Comparison
    base: Mapping[str, Turns]
    names: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]

    def original(self, mutant: Program) -> Program:
        """The candidate's own program of that name."""
        return next(part for part in every(self.trial.programs) if part.name == mutant.name)

    def same(self, mutant: Program) -> bool:
        """Whether it is proved to be the same computation, without rewrites."""
        return self.names[mutant.name][0] == named(mutant)


def open_oracle(trial: Trial, workshop: Workshop, noise: Noise) -> Oracle:
    """Run a candidate as it is.

    Args:
        trial: the candidate.
        workshop: the case.
        noise: of the reference.
    """
    base = everything(trial)
    samples = {
        probe: Sample({place: array for outputs in turns.values() for place, array in outputs.items()}, None)
        for probe, turns in base.items()
    }
    seen = Observed(trial.traced.table, 0, samples, {}, {})
    names = {program.name: (named(program), named(program, modulo=True)) for program in every(trial.programs)}
    return Oracle(trial, Comparison(workshop.case, seen, seen, noise), base, names)


def named(program: Program, modulo: bool = False) -> dict[str, str]:
    """Output to its name: alike where two computations are proved to be the same, `modulo` named rewrites."""
    numbering = Numbering(Algebra(frozenset(CONDITIONS) if modulo else frozenset[str]()))
    return {output: value.name for output, value in number_program(program, numbering).items()}


def looked_at(oracle: Oracle, mutant: Program, trial: Trial | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """Where a changed program is noticed; where nowhere, an empty dictionary, and all that was looked at.

    Args:
        oracle: the candidate as it is.
        mutant: one program, changed.
        trial: with which it is run; None: all other programs are the candidate's own.
    """
    runs = trial or oracle.trial
    unnoticed: list[Finding] = []
    for probe in runs.shows(mutant):
        for step, outputs in enumerate(runs.all(mutant, probe)):
            base = oracle.base[probe]["step" if mutant.name == "begin" else mutant.name, step]
            pairs = {place: (base[place], array) for place, array in outputs.items()}
            findings = [compare_arrays(oracle.comparison, probe, place, pair, None) for place, pair in pairs.items()]
            if refuted := [finding for finding in findings if finding.grade == "refuted"]:
                worst = max(refuted, key=lambda finding: math.inf if finding.ratio is None else finding.ratio)
                where = {"place": worst.place, "probe": probe, "ratio": worst.ratio, "check": check_of(worst.place)}
                return where, []
            unnoticed += [finding for finding in findings if finding.grade not in ("unidentifiable", "vacuous")]
    return {}, unnoticed


def explained(
    oracle: Oracle, mutant: Program, unnoticed: Sequence[Finding], trial: Trial | None = None
) -> tuple[Outcome, str]:
    """Why a changed program is not noticed; arguments as of `looked_at`, with all that was looked at."""
    for modulo, way in enumerate(("", ", modulo named rewrites")):
        if oracle.names[mutant.name][modulo] == named(mutant, modulo=bool(modulo)):
            return "equivalent", f"proved to be the same computation{way}"
    finding = max(unnoticed, key=lambda finding: finding.error or 0.0, default=None)
    if finding is None or not finding.error:
        return "unidentifiable", UNMOVED
    moved = f"moves {finding.place} by {finding.error:.1e}"
    if finding.error > (finding.response or 0.0) and _systematic(oracle, mutant, finding, trial or oracle.trial):
        return "survived", f"{moved}, within the budget of {finding.budget:.1e}"
    return "unidentifiable", f"{moved}, up or down as rounding goes: the same in real numbers on every probe"


def _systematic(oracle: Oracle, mutant: Program, finding: Finding, trial: Trial) -> bool:
    """Whether the difference keeps its sign and size when rounding changes: every input moves by an ulp of float32."""
    own, original = oracle.trial, oracle.original(mutant)
    probe = own.probes[finding.probe]

    def apart(seed: int) -> np.ndarray:
        probes = {probe.name: nudged(probe, 1000 + seed, "float32") if seed else probe}
        mutants = replace(trial, probes=probes).all(mutant, probe.name)
        runs = zip(mutants, replace(own, probes=probes).all(original, probe.name), strict=True)
        return np.stack([one[finding.place] - other[finding.place] for one, other in runs]).reshape(-1)

    first = apart(0)
    worst = np.argmax(np.abs(first))
    return all(0.5 < apart(seed)[worst] / first[worst] < 2 for seed in range(1, AGAIN))


def check_of(place: str) -> str:
    """The check that looks at a place."""
    program, _, output = place.partition(": ")
    if program == "train":
        return "train"
    if program.startswith("gradient "):
        return "gradients"
    return "state" if output.startswith("state ") else "outputs"
