"""Evidence for the equality of a case: places decided numerically, known differences, and the prover's rewrites."""

from collections.abc import Iterable
from dataclasses import dataclass

from equiv.core.results import CaseResult
from equiv.report.findings.source_lines import DifferenceSite, SiteKey, difference_sites, site_key


@dataclass(frozen=True)
class UnprovedGroup:
    """Places that are equal numerically but not proved, and the first equations that the prover could not match."""

    candidate: str
    sites: tuple[DifferenceSite, ...]
    places: tuple[str, ...]


def unproved_groups(case: CaseResult) -> tuple[UnprovedGroup, ...]:
    """Group the places that are equal numerically but not proved, by candidate and first different equations."""
    groups: dict[tuple[str, tuple[SiteKey, ...]], list[str]] = {}
    known: dict[tuple[str, tuple[SiteKey, ...]], tuple[DifferenceSite, ...]] = {}
    for check in case.checks:
        for finding in check.findings:
            if finding.grade in ("float64", "rounding") or (finding.grade == "exact" and finding.first_differences):
                found = difference_sites(case, finding, check.candidate)
                key = (check.candidate, tuple(map(site_key, found)))
                known.setdefault(key, found)
                groups.setdefault(key, []).append(finding.place)
    return tuple(UnprovedGroup(key[0], known[key], tuple(places)) for key, places in groups.items())


def known_formulas(case: CaseResult) -> tuple[str, ...]:
    """Return the known differences that hold, as the case declares them."""
    return _distinct(finding.note for check in case.checks for finding in check.findings if finding.grade == "expected")


def _distinct(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for note in notes if note))


@dataclass(frozen=True)
class RewriteUse:
    """A rewrite that proofs use: its condition, and the number of proofs per candidate."""

    name: str
    condition: str
    uses: str


def rewrite_uses(case: CaseResult, conditions: dict[str, str]) -> tuple[RewriteUse, ...]:
    """Return the rewrites that the proofs of a case use."""
    uses: dict[str, dict[str, int]] = {}
    for check in case.checks:
        for name in (name for finding in check.findings for name in finding.rewrites):
            by = uses.setdefault(name, {})
            by[check.candidate] = by.get(check.candidate, 0) + 1
    return tuple(
        RewriteUse(name, conditions.get(name, ""), ", ".join(f"{candidate} {count}" for candidate, count in by.items()))
        for name, by in uses.items()
    )
