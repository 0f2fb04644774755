"""Nouns of what a selfcheck found: planted faults, and what became of each. No jax is imported here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["noticed", "equivalent", "unidentifiable", "survived"]


OUTCOMES: tuple[Outcome, ...] = ("noticed", "equivalent", "unidentifiable", "survived")


BUILDER = "builder"
"""What stands for a program where a fault is planted in a builder."""


SIGNS: dict[Outcome, str] = {"noticed": "✓", "equivalent": "=", "unidentifiable": "?", "survived": "✗"}
"""A sign for every outcome: colour never speaks alone."""


@dataclass(frozen=True)
class Kill:
    """One fault planted in one place of one candidate.

    Attributes:
        candidate: whose program.
        fault: kind of the fault.
        program: name of the program; `BUILDER` where the fault is a hyperparameter of a layer.
        site: the equation with its source line, or the input or output; or the layer and its hyperparameter.
        outcome: `noticed`; `equivalent`: proved to be the same computation; `unidentifiable`: no probe can tell, and
            why; `survived`: hidden by the budget.
        check: which check notices it.
        place: where it is noticed: `program: output`; `leaf name` or `model` where the port itself does not fit.
        probe: on which probe.
        ratio: error / budget there; None where the error is not a number or has no budget.
        reason: why it is not noticed; or what is noticed, where that is no number.
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
    """All faults of one kind in one candidate.

    Attributes:
        candidate: whose programs.
        fault: kind of the fault.
        outcomes: how many came to each outcome.
        checks: how many each check noticed.
    """

    candidate: str
    fault: str
    outcomes: dict[Outcome, int]
    checks: dict[str, int]


@dataclass(frozen=True)
class FaultMatrix:
    """A case's selfcheck as kept in the results.

    Attributes:
        rows: by candidate and kind of fault, in the order of the catalogue.
        missed: every fault that was neither noticed nor proved to be none, with its reason.
        fits_nowhere: kinds of fault that no program of the case has a place for.
        problem: why nothing could be planted, in whom.
        seconds: how long it took.
    """

    rows: tuple[FaultRow, ...]
    missed: tuple[Kill, ...] = ()
    fits_nowhere: tuple[str, ...] = ()
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SelfcheckResult:
    """One case with faults planted.

    Attributes:
        name: of the case.
        fresh: whether the leaves were as freshly initialised and the batch ones.
        kills: every planted fault.
        kinds: all kinds of fault that were tried, in the order of the catalogue; one without a kill fits nowhere.
        problem: why nothing could be planted, in whom.
        seconds: how long it took.
    """

    name: str
    fresh: bool
    kills: tuple[Kill, ...] = ()
    kinds: tuple[str, ...] = ()
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Selfcheck:
    """All cases of a selfcheck under one headline."""

    headline: str
    cases: tuple[SelfcheckResult, ...]


def counts(kills: Iterable[Kill]) -> Counter[Outcome]:
    """How many faults came to each outcome."""
    return Counter(kill.outcome for kill in kills)


def matrix(result: SelfcheckResult) -> FaultMatrix:
    """A selfcheck counted by candidate and kind of fault."""
    groups: dict[tuple[str, str], list[Kill]] = {}
    for kill in result.kills:
        groups.setdefault((kill.candidate, kill.fault), []).append(kill)
    rows = [
        FaultRow(*key, dict(counts(kills)), dict(Counter(kill.check for kill in kills if kill.check)))
        for key, kills in groups.items()
    ]
    missed = tuple(kill for kill in result.kills if kill.outcome in ("unidentifiable", "survived"))
    planted = {kill.fault for kill in result.kills}
    absent = tuple(kind for kind in result.kinds if kind not in planted)
    return FaultMatrix(tuple(rows), missed, absent, result.problem, result.seconds)


def conclude(cases: Iterable[SelfcheckResult]) -> Selfcheck:
    """All cases under one headline."""
    every = tuple(cases)
    found = counts(kill for case in every for kill in case.kills)
    rest = [f"{found[outcome]} {outcome}" for outcome in OUTCOMES[1:]]
    problems = sum(bool(case.problem) for case in every)
    headline = f"{found['noticed']} of {found.total()} faults noticed, {', '.join(rest)}"
    return Selfcheck(f"{headline}; {problems} cases with problems" if problems else headline, every)


def exit_code(result: Selfcheck) -> int:
    """As in `diff`: 0 none survived, 1 some did, 2 trouble, 3 nothing was planted."""
    if any(case.problem for case in result.cases):
        return 2
    found = counts(kill for case in result.cases for kill in case.kills)
    return 1 if found["survived"] else 0 if found.total() else 3
