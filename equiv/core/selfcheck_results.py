"""The results of a selfcheck: planted faults, and which check notices each of them. JAX is not imported here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["killed", "equivalent", "unidentifiable", "survived"]

OUTCOMES: tuple[Outcome, ...] = ("killed", "equivalent", "unidentifiable", "survived")

BUILDER = "builder"
"""Used as the name of the program if a fault is planted in a builder."""

OUTCOME_SIGNS: dict[Outcome, str] = {"killed": "✓", "equivalent": "=", "unidentifiable": "?", "survived": "✗"}
"""A sign for every outcome, as colour alone is not accessible."""


@dataclass(frozen=True)
class MutantResult:
    """One mutant: a candidate with one fault planted in one place, and its outcome.

    Attributes:
        candidate: name of the port.
        fault: kind of the fault.
        program: name of the program; `BUILDER` if the fault is a hyperparameter of a layer.
        site: the equation with its source line, or the input or output; or the layer and its hyperparameter.
        outcome: `killed`: noticed by a check; `equivalent`: proved to be the same computation; `unidentifiable`: no
            probe can detect it; `survived`: its effect is within the budget.
        check: the check that kills it.
        place: where it is noticed: `program: output`; or the leaf name or `model` if the mutant cannot be compared.
        probe: the probe that detects it.
        ratio: error / budget there; None if the error is not a number or has no budget.
        reason: why it is not noticed; or what is noticed, if that is not a number.
    """

    candidate: str
    fault: str
    program: str
    site: str
    outcome: Outcome
    check: str = ""
    place: str = ""
    probe: str = ""
    ratio: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class FaultRow:
    """All mutants of one candidate with one kind of fault.

    Attributes:
        candidate: name of the port.
        fault: kind of the fault.
        outcomes: number of mutants per outcome.
        checks: number of mutants that each check killed.
    """

    candidate: str
    fault: str
    outcomes: dict[Outcome, int]
    checks: dict[str, int]


@dataclass(frozen=True)
class FaultMatrix:
    """The selfcheck of a case, as written to results.json.

    Attributes:
        rows: by candidate and kind of fault, in the order of the catalogue.
        missed: every mutant that was neither killed nor proved equivalent, with its reason.
        not_applicable: kinds of fault that cannot be planted in any program of the case.
        problem: the candidates in which nothing could be planted, and why.
        seconds: duration.
    """

    rows: tuple[FaultRow, ...]
    missed: tuple[MutantResult, ...] = ()
    not_applicable: tuple[str, ...] = ()
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SelfcheckResult:
    """The selfcheck of one case.

    Attributes:
        name: of the case.
        fresh: whether the baseline was used: default-initialised parameters and an all-ones batch.
        mutants: one per planted fault.
        kinds: all kinds of fault that were tried, in the order of the catalogue; one without mutants is not applicable.
        problem: the candidates in which nothing could be planted, and why.
        seconds: duration.
    """

    name: str
    fresh: bool
    mutants: tuple[MutantResult, ...] = ()
    kinds: tuple[str, ...] = ()
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Selfcheck:
    """All cases of a selfcheck, with a headline."""

    headline: str
    cases: tuple[SelfcheckResult, ...]


def count_outcomes(mutants: Iterable[MutantResult]) -> Counter[Outcome]:
    """The number of mutants per outcome."""
    return Counter(mutant.outcome for mutant in mutants)


def fault_matrix(result: SelfcheckResult) -> FaultMatrix:
    """Count the mutants of a selfcheck by candidate and kind of fault."""
    groups: dict[tuple[str, str], list[MutantResult]] = {}
    for mutant in result.mutants:
        groups.setdefault((mutant.candidate, mutant.fault), []).append(mutant)
    rows = [
        FaultRow(*key, dict(count_outcomes(mutants)), dict(Counter(mutant.check for mutant in mutants if mutant.check)))
        for key, mutants in groups.items()
    ]
    missed = tuple(mutant for mutant in result.mutants if mutant.outcome in ("unidentifiable", "survived"))
    planted = {mutant.fault for mutant in result.mutants}
    absent = tuple(kind for kind in result.kinds if kind not in planted)
    return FaultMatrix(tuple(rows), missed, absent, result.problem, result.seconds)


def summarise_selfcheck(cases: Iterable[SelfcheckResult]) -> Selfcheck:
    """Combine all cases of a selfcheck, with a headline."""
    all_cases = tuple(cases)
    found = count_outcomes(mutant for case in all_cases for mutant in case.mutants)
    rest = [f"{found[outcome]} {outcome}" for outcome in OUTCOMES[1:]]
    problems = sum(bool(case.problem) for case in all_cases)
    headline = f"{found['killed']} of {found.total()} mutants killed, {', '.join(rest)}"
    return Selfcheck(f"{headline}; {problems} cases with problems" if problems else headline, all_cases)


def selfcheck_exit_code(result: Selfcheck) -> int:
    """The exit code, as that of `diff`: 0 none survived, 1 some survived, 2 error; and 3 nothing was planted."""
    if any(case.problem for case in result.cases):
        return 2
    found = count_outcomes(mutant for case in result.cases for mutant in case.mutants)
    return 1 if found["survived"] else 0 if found.total() else 3
