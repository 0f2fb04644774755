"""Which candidates can be judged at all: built, and with the reference's leaves."""

from collections.abc import Sequence

from equiv.checks import structure
from equiv.errors import EquivError, NotRun
from equiv.judge import CHECKS
from equiv.observe import outline
from equiv.observed import Comparison, Noise, Observed
from equiv.results import CheckResult, Finding
from equiv.workshop import Workshop


def admit(workshop: Workshop, reference: Observed, candidates: Sequence[str]) -> tuple[list[str], list[CheckResult]]:
    """The candidates that can be run, and what is known of all: their structure, or why they cannot.

    Args:
        workshop: the case.
        reference: its leaves.
        candidates: by backend.
    """
    ready: list[str] = []
    checks: list[CheckResult] = []
    for candidate in candidates:
        if problem := workshop.problems.get(candidate):
            checks += _stopped(candidate, problem)
            continue
        comparison = Comparison(workshop.case, reference, outline(workshop, candidate), Noise({}, {}, {}))
        result = structure.check(comparison)
        checks.append(result)
        if broken := [item for item in result.findings if item.grade == "refuted" and item.place.startswith("leaf ")]:
            note = f"{broken[0].place}: {broken[0].note}"
            checks += [CheckResult(later.NAME, candidate, "blocked", note) for later in CHECKS[1:]]
        else:
            ready.append(candidate)
    return ready, checks


def in_order(checks: Sequence[CheckResult], candidates: Sequence[str]) -> list[CheckResult]:
    """By candidate, then as in `equiv.results.CHECKS`."""
    order = [module.NAME for module in CHECKS]
    return sorted(checks, key=lambda check: (candidates.index(check.candidate), order.index(check.check)))


def _stopped(candidate: str, problem: EquivError) -> list[CheckResult]:
    grade = "not run" if isinstance(problem, NotRun) else "error"
    first, *later = CHECKS
    blocked = [CheckResult(check.NAME, candidate, "blocked", f"{first.NAME}: {problem}") for check in later]
    finding = Finding(candidate, grade, note=str(problem))
    return [CheckResult(first.NAME, candidate, grade, str(problem), (finding,)), *blocked]
