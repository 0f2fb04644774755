"""How the equality of a case is known: what numbers decide, by which formulas, and what the prover used."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from equiv.core.results import CaseResult
from equiv.report.findings.source_lines import Site, sites


@dataclass(frozen=True)
class Unproved:
    """Places without proof that numbers decide, and the equations that kept them from it."""

    candidate: str
    sites: tuple[Site, ...]
    places: tuple[str, ...]


def unproved(case: CaseResult) -> tuple[Unproved, ...]:
    """What is equal by numbers alone, by candidate and by where the programs part."""
    groups: dict[tuple[str, ...], list[str]] = {}
    known: dict[tuple[str, ...], tuple[Site, ...]] = {}
    for check in case.checks:
        for finding in check.findings:
            if finding.grade in ("float64", "rounding"):
                found = sites(case, finding.source, check.candidate)
                parts = (f"{site.equation.operation} {site.equation.file} {site.equation.line}" for site in found)
                key = (check.candidate, *parts)
                known.setdefault(key, found)
                groups.setdefault(key, []).append(finding.place)
    return tuple(Unproved(key[0], known[key], tuple(places)) for key, places in groups.items())


def formulas(case: CaseResult) -> tuple[str, ...]:
    """The known differences that hold, as the case states them."""
    return _distinct(finding.note for check in case.checks for finding in check.findings if finding.grade == "expected")


def _distinct(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for note in notes if note))


@dataclass(frozen=True)
class Rewriting:
    """A rewrite of real arithmetic that proofs use: its condition, and how many proofs of which candidate."""

    name: str
    condition: str
    uses: str


def rewritings(case: CaseResult, conditions: dict[str, str]) -> tuple[Rewriting, ...]:
    """The rewrites that the proofs of a case name."""
    uses: dict[str, dict[str, int]] = {}
    for candidate, note in _modulo(case):
        for name in note.split("; "):
            by = uses.setdefault(name, {})
            by[candidate] = by.get(candidate, 0) + 1
    return tuple(
        Rewriting(name, conditions.get(name, ""), ", ".join(f"{candidate} {count}" for candidate, count in by.items()))
        for name, by in uses.items()
    )


def _modulo(case: CaseResult) -> Iterator[tuple[str, str]]:
    for check in case.checks:
        for finding in check.findings:
            if finding.grade == "proved modulo":
                yield check.candidate, finding.note
