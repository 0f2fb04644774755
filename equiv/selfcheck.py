"""Would a fault be noticed? Faults planted in every candidate's programs, one at a time, judged as a port is judged.

Mutant and original run in float64 on the probes of a run; the budget is how far rounding moves the reference.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from equiv.errors import EquivError
from equiv.evidence.algebra import CONDITIONS, Algebra
from equiv.evidence.compare import compare_arrays
from equiv.evidence.faults.spots import spots
from equiv.evidence.mutate import FAULTS, Fault, Mutation, applied
from equiv.evidence.number import Numbering, number_program
from equiv.evidence.prove import every
from equiv.kills import Kill, Outcome, SelfcheckResult
from equiv.load import LoadedCase
from equiv.observed import Comparison, Noise, Observed, Sample
from equiv.probe import nudged
from equiv.program import Program
from equiv.results import Finding
from equiv.trial import Trial, Turns, everything, noise_of, open_trial
from equiv.workshop import Workshop, open_workshop

TRIES = 3
"""How many places of one kind in one program are tried until one is noticed; all that are tried are reported."""

AGAIN = 8
"""How often a difference below the budget is looked at again, with every input moved a little."""

SEED = 0
"""Decides which places those are."""


def selfcheck(loaded: LoadedCase, faults: Sequence[Fault] = FAULTS, fresh: bool = False) -> SelfcheckResult:
    """Plant faults in every candidate of a case.

    Args:
        loaded: the case.
        faults: kinds of fault.
        fresh: with leaves as freshly initialised and a batch of ones, to see how many fewer are noticed.
    """
    started = time.perf_counter()
    kills: list[Kill] = []
    problems: list[str] = []
    workshop = open_workshop(loaded.case)
    reference, *candidates = loaded.case.models
    try:
        noise = noise_of(open_trial(workshop, reference, fresh))
    except EquivError as error:
        return SelfcheckResult(loaded.name, fresh, problem=str(error))
    for candidate in candidates:
        try:
            trial = open_trial(workshop, candidate, fresh)
            kills += _kills(trial, _judge(trial, workshop, noise), faults)
        except EquivError as error:
            problems.append(str(error))
    kinds = tuple(fault.kind for fault in faults)
    seconds = round(time.perf_counter() - started, 3)
    return SelfcheckResult(loaded.name, fresh, tuple(kills), kinds, "; ".join(problems), seconds)


@dataclass(frozen=True, eq=False)
class Judge:
    """What mutants of one candidate are held against.

    Attributes:
        comparison: with the reference's budget.
        base: what the candidate itself gives.
        names: program and rewrites to the names of its outputs.
    """

    comparison: Comparison
    base: Mapping[str, Turns]
    names: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]


def _judge(trial: Trial, workshop: Workshop, noise: Noise) -> Judge:
    base = everything(trial)
    samples = {
        probe: Sample({place: array for outputs in turns.values() for place, array in outputs.items()}, None)
        for probe, turns in base.items()
    }
    seen = Observed(trial.traced.table, 0, samples, {}, {})
    names = {program.name: _names(program) for program in every(trial.programs)}
    return Judge(Comparison(workshop.case, seen, seen, noise), base, names)


def _names(program: Program) -> tuple[dict[str, str], dict[str, str]]:
    """Output to its name, without rewrites and with all of them."""
    one, other = (
        {output: value.name for output, value in number_program(program, Numbering(Algebra(rules))).items()}
        for rules in (frozenset[str](), frozenset(CONDITIONS))
    )
    return one, other


def _kills(trial: Trial, judge: Judge, faults: Sequence[Fault]) -> Iterator[Kill]:
    for program in every(trial.programs):
        places = list(spots(program))
        for fault in faults:
            for tried, (mutation, mutant) in enumerate(applied(program, fault, SEED, places)):
                kill = _kill(trial, judge, mutation, mutant)
                yield kill
                if kill.outcome == "noticed" or tried + 1 == TRIES:
                    break


def _kill(trial: Trial, judge: Judge, mutation: Mutation, mutant: Program) -> Kill:
    """What becomes of one fault: noticed by some output, else proved to be none, else the reason."""
    backend = trial.traced.port.backend
    unnoticed: list[Finding] = []
    for probe in trial.shows(mutant):
        for step, outputs in enumerate(trial.all(mutant, probe)):
            base = judge.base[probe]["step" if mutant.name == "begin" else mutant.name, step]
            pairs = {place: (base[place], array) for place, array in outputs.items()}
            findings = [compare_arrays(judge.comparison, probe, place, pair, None) for place, pair in pairs.items()]
            if refuted := [finding for finding in findings if finding.grade == "refuted"]:
                worst = max(refuted, key=lambda finding: math.inf if finding.ratio is None else finding.ratio)
                place = {"place": worst.place, "probe": probe, "ratio": worst.ratio, "check": _check(worst.place)}
                return Kill(backend, mutation.kind, mutation.program, mutation.site, "noticed", **place)
            unnoticed += [finding for finding in findings if finding.grade not in ("unidentifiable", "vacuous")]
    outcome, reason = _explained(trial, judge, mutant, unnoticed)
    return Kill(backend, mutation.kind, mutation.program, mutation.site, outcome, reason=reason)


def _explained(trial: Trial, judge: Judge, mutant: Program, unnoticed: Sequence[Finding]) -> tuple[Outcome, str]:
    ways = zip(("", ", modulo named rewrites"), judge.names[mutant.name], _names(mutant), strict=True)
    for modulo, ours, theirs in ways:
        if ours == theirs:
            return "equivalent", f"proved to be the same computation{modulo}"
    finding = max(unnoticed, key=lambda finding: finding.error or 0.0, default=None)
    if finding is None or not finding.error:
        return "unidentifiable", "no output moves on any probe"
    moved = f"moves {finding.place} by {finding.error:.1e}"
    if finding.error > (finding.response or 0.0) and _systematic(trial, mutant, finding):
        return "survived", f"{moved}, within the budget of {finding.budget:.1e}"
    return "unidentifiable", f"{moved}, up or down as rounding goes: the same in real numbers on every probe"


def _systematic(trial: Trial, mutant: Program, finding: Finding) -> bool:
    """Whether the difference keeps its sign and size when rounding changes: every input moves by an ulp of float32."""
    probe = trial.probes[finding.probe]
    original = next(part for part in every(trial.programs) if part.name == mutant.name)

    def apart(seed: int) -> np.ndarray:
        moved = replace(trial, probes={probe.name: nudged(probe, 1000 + seed, "float32") if seed else probe})
        runs = zip(moved.all(mutant, probe.name), moved.all(original, probe.name), strict=True)
        return np.stack([one[finding.place] - other[finding.place] for one, other in runs]).reshape(-1)

    first = apart(0)
    worst = np.argmax(np.abs(first))
    return all(0.5 < apart(seed)[worst] / first[worst] < 2 for seed in range(1, AGAIN))


def _check(place: str) -> str:
    """The check that looks at a place."""
    program, _, output = place.partition(": ")
    if program == "train":
        return "train"
    if program.startswith("gradient "):
        return "gradients"
    return "state" if output.startswith("state ") else "outputs"
