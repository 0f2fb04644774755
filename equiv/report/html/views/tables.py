"""The tables of a case: leaves with their location in each library, findings about other outputs, divergences."""

import re
from dataclasses import dataclass, replace

from equiv.core.grades import EQUAL_GRADES
from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding, LeafResult
from equiv.core.verdict import check_grade
from equiv.report.cells import GRADE_SIGNS, describe_finding, format_ratio
from equiv.report.findings.possible_causes import failed_findings
from equiv.report.findings.source_lines import DifferenceSite, SiteKey, difference_sites, site_key
from equiv.report.html.views.overview import grade_state

MANY_LEAVES = 60
"""Above this number of leaves, a library's shape is shown only where it differs from the canonical one."""


@dataclass(frozen=True)
class LocationCell:
    """Where one library stores a leaf: path, collection, shape, and the layout where it is not the canonical one."""

    path: str
    collection: str
    shape: str
    layout: str


@dataclass(frozen=True)
class GradeCell:
    """The result of one place of one candidate.

    Attributes:
        words: sign, grade and error / budget.
        state: `good`, `meant`, `warn`, `bad` or `none`.
        figures: error and budget, and the check where it is ambiguous.
    """

    words: str
    state: str
    figures: str


@dataclass(frozen=True)
class LeafRow:
    """One canonical leaf across the libraries and candidates."""

    leaf: str
    spec: str
    places: tuple[LocationCell | None, ...]
    grades: tuple[GradeCell | None, ...]


def leaf_rows(case: CaseResult) -> tuple[LeafRow, ...]:
    """Return the leaf table: every canonical leaf with its location in each library and its grade in each candidate."""
    found = {candidate: _findings_by_leaf(case, candidate) for candidate in case.candidates}
    return tuple(
        LeafRow(
            leaf.leaf,
            f"{leaf.dtype}{list(leaf.shape)}",
            tuple(
                _leaf_location(leaf, backend, len(case.leaves) > MANY_LEAVES)
                for backend in (case.reference, *case.candidates)
            ),
            tuple(_weakest_cell(found[candidate].get(leaf.leaf, [])) for candidate in case.candidates),
        )
        for leaf in case.leaves
    )


def _leaf_location(leaf: LeafResult, backend: str, short: bool) -> LocationCell | None:
    if backend not in leaf.places:
        return None
    path, _, collection = leaf.places[backend].rpartition(" (")
    shape = leaf.shapes.get(backend, leaf.shape)
    shape_text = "" if short and shape == leaf.shape else _shape_text(shape)
    return LocationCell(path, collection.removesuffix(")"), shape_text, _layout_words(leaf.layouts.get(backend, "")))


def _layout_words(layout: str) -> str:
    """Format a layout: `DropUnitAxes()` becomes `drop unit axes`."""
    name, _, arguments = layout.removesuffix(")").partition("(")
    return f"{re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name).lower()} {arguments}".strip()


def _shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape as a tuple: `(256,)`."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


CheckedFinding = tuple[CheckResult, Finding]


def _findings_by_leaf(case: CaseResult, candidate: str) -> dict[str, list[CheckedFinding]]:
    leaves = {leaf.leaf for leaf in case.leaves}
    found: dict[str, list[CheckedFinding]] = {}
    for check in case.checks:
        for finding in check.findings if check.candidate == candidate else ():
            # Presence of the leaf in both ports says nothing about its values.
            bare = check.check == "structure" and finding.grade in EQUAL_GRADES
            if (leaf := finding.leaf) in leaves and not bare:
                found.setdefault(leaf, []).append((check, finding))
    return found


def _weakest_cell(found: list[CheckedFinding]) -> GradeCell | None:
    if not found:
        return None
    grade = check_grade(tuple(finding for _, finding in found))
    check, worst = max(
        (pair for pair in found if pair[1].grade == grade),
        key=lambda pair: (severity(pair[1]), pair[1].error or 0.0),
    )
    return grade_cell(worst, check.check)


def grade_cell(finding: Finding, where: str = "") -> GradeCell:
    """Format a finding as one cell, with the check `where` its error is from."""
    ratio = f" {format_ratio(finding.ratio)}" if finding.ratio else ""
    figures = ""
    if finding.error:
        figures = f"{finding.error:.2g} / {finding.budget or 0:.2g}{f' in {where}' if where else ''}"
    return GradeCell(f"{GRADE_SIGNS[finding.grade]} {finding.grade}{ratio}", grade_state(finding.grade), figures)


@dataclass(frozen=True)
class FindingRow:
    """One output or property that belongs to no leaf, with its grade in each candidate."""

    check: str
    place: str
    grades: tuple[GradeCell | None, ...]


def finding_rows(case: CaseResult) -> tuple[FindingRow, ...]:
    """Return outputs, losses, random draws, parameter paths: everything without a row in the leaf table."""
    leaves = {leaf.leaf for leaf in case.leaves}
    found: dict[tuple[str, str], dict[str, Finding]] = {}
    for check in case.checks:
        for finding in check.findings:
            if finding.leaf not in leaves:
                found.setdefault((check.check, finding.place), {})[check.candidate] = finding
    return tuple(
        FindingRow(*key, tuple(grade_cell(by[who]) if who in by else None for who in case.candidates))
        for key, by in found.items()
    )


@dataclass(frozen=True)
class FailedPlace:
    """One place whose finding is refuted or failed."""

    check: str
    place: str
    words: str


@dataclass(frozen=True)
class Divergence:
    """Where both programs diverge, and every failed place that this explains.

    Attributes:
        sites: the first different equations; empty where unknown.
        failed_places: the places, most informative first.
        lines: the description of the first of them.
    """

    sites: tuple[DifferenceSite, ...]
    failed_places: tuple[FailedPlace, ...]
    lines: tuple[str, ...]


def divergences(case: CaseResult, candidate: str) -> tuple[Divergence, ...]:
    """Group the failed places of a candidate by first different equations, most informative first."""
    groups: dict[tuple[DifferenceSite, ...], list[tuple[CheckResult, Finding]]] = {}
    keys: dict[tuple[SiteKey, ...], tuple[DifferenceSite, ...]] = {}
    for check, finding in failed_findings(case, candidate):
        found = difference_sites(case, finding, candidate)
        key = tuple(map(site_key, found))
        groups.setdefault(keys.setdefault(key, found), []).append((check, finding))
    return tuple(
        Divergence(
            found,
            tuple(FailedPlace(check.check, finding.place, grade_cell(finding).words) for check, finding in places),
            tuple(describe_finding(replace(places[0][1], first_differences=()), case.reference, candidate)),
        )
        for found, places in groups.items()
    )
