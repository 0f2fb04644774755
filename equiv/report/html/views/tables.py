"""The tables of a case: leaves with their place in each library, findings that are no leaf's, what differs."""

import re
from dataclasses import dataclass

from equiv.core.grades import EQUAL
from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding, LeafResult
from equiv.core.verdict import weakest
from equiv.report.cells import SIGNS, shown, values
from equiv.report.findings.likely_causes import refused
from equiv.report.findings.source_lines import Site, sites
from equiv.report.html.views.overview import state_of

MANY = 60
"""Leaves from which on a shape is told once a row, and again only where a library has another."""


@dataclass(frozen=True)
class Place:
    """Where one library keeps a leaf: path, collection, shape, and the layout where it is another."""

    path: str
    collection: str
    shape: str
    layout: str


@dataclass(frozen=True)
class Judged:
    """What is known of one place of one candidate.

    Attributes:
        words: sign, grade and error / budget.
        state: `good`, `meant`, `warn`, `bad` or `none`.
        figures: error and budget, and in which check where that is not clear.
    """

    words: str
    state: str
    figures: str


@dataclass(frozen=True)
class LeafRow:
    """One canonical leaf across the libraries and candidates."""

    leaf: str
    spec: str
    places: tuple[Place | None, ...]
    judged: tuple[Judged | None, ...]


def leaf_rows(case: CaseResult) -> tuple[LeafRow, ...]:
    """The layer table: every canonical leaf with its native places and what each candidate came to."""
    found = {candidate: _by_leaf(case, candidate) for candidate in case.candidates}
    return tuple(
        LeafRow(
            leaf.leaf,
            f"{leaf.dtype}{list(leaf.shape)}",
            tuple(_place(leaf, backend, len(case.leaves) > MANY) for backend in (case.reference, *case.candidates)),
            tuple(_weakest(found[candidate].get(leaf.leaf, [])) for candidate in case.candidates),
        )
        for leaf in case.leaves
    )


def _place(leaf: LeafResult, backend: str, short: bool) -> Place | None:
    if backend not in leaf.places:
        return None
    path, _, collection = leaf.places[backend].rpartition(" (")
    shape = leaf.shapes.get(backend, leaf.shape)
    told = "" if short and shape == leaf.shape else _tuple(shape)
    return Place(path, collection.removesuffix(")"), told, _in_words(leaf.layouts.get(backend, "")))


def _in_words(layout: str) -> str:
    """`DropUnitAxes()` is `drop unit axes`."""
    name, _, arguments = layout.removesuffix(")").partition("(")
    return f"{re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name).lower()} {arguments}".strip()


def _tuple(shape: tuple[int, ...]) -> str:
    """As the guides print it: `(256,)`."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


Named = tuple[CheckResult, Finding]


def _by_leaf(case: CaseResult, candidate: str) -> dict[str, list[Named]]:
    leaves = {leaf.leaf for leaf in case.leaves}
    found: dict[str, list[Named]] = {}
    for check in case.checks:
        for finding in check.findings if check.candidate == candidate else ():
            # That both have the leaf says nothing of its values.
            bare = check.check == "structure" and finding.grade in EQUAL
            if (leaf := leaf_of(finding.place)) in leaves and not bare:
                found.setdefault(leaf, []).append((check, finding))
    return found


def leaf_of(place: str) -> str:
    """The leaf that a place is about: `gradient __call__: gradient a/kernel` is about `a/kernel`; empty: none."""
    program, _, output = place.partition(": ")
    if not output:
        return program.removeprefix("leaf ") if program.startswith("leaf ") else ""
    for prefix in ("gradient ", "state "):
        if output.startswith(prefix):
            return output.removeprefix(prefix)
    return output if program == "train" else ""


def _weakest(found: list[Named]) -> Judged | None:
    if not found:
        return None
    grade = weakest(tuple(finding for _, finding in found))
    check, worst = max(
        (pair for pair in found if pair[1].grade == grade),
        key=lambda pair: (severity(pair[1]), pair[1].error or 0.0),
    )
    return judged(worst, check.check)


def judged(finding: Finding, where: str = "") -> Judged:
    """A finding in one cell; what is proved holds whatever the numbers are."""
    ratio = f" {shown(finding.ratio)}" if finding.ratio else ""
    figures = ""
    if finding.error:
        figures = f"{finding.error:.2g} / {finding.budget or 0:.2g}{f' in {where}' if where else ''}"
    return Judged(f"{SIGNS[finding.grade]} {finding.grade}{ratio}", state_of(finding.grade), figures)


@dataclass(frozen=True)
class PlaceRow:
    """One output or property that is no leaf's: what each candidate came to."""

    check: str
    place: str
    judged: tuple[Judged | None, ...]


def place_rows(case: CaseResult) -> tuple[PlaceRow, ...]:
    """Outputs, losses, draws, printed paths: everything that the table of leaves has no row for."""
    leaves = {leaf.leaf for leaf in case.leaves}
    found: dict[tuple[str, str], dict[str, Finding]] = {}
    for check in case.checks:
        for finding in check.findings:
            if leaf_of(finding.place) not in leaves:
                found.setdefault((check.check, finding.place), {})[check.candidate] = finding
    return tuple(
        PlaceRow(*key, tuple(judged(by[who]) if who in by else None for who in case.candidates))
        for key, by in found.items()
    )


@dataclass(frozen=True)
class Seen:
    """One refused place."""

    check: str
    place: str
    words: str


@dataclass(frozen=True)
class Divergence:
    """Where both programs part, and every refused place that this explains.

    Attributes:
        sites: the first different equations; none where no pair is known.
        seen: the places, the most telling first.
        lines: everything that is known of the first of them.
    """

    sites: tuple[Site, ...]
    seen: tuple[Seen, ...]
    lines: tuple[str, ...]


def divergences(case: CaseResult, candidate: str) -> tuple[Divergence, ...]:
    """The refused places of a candidate by where the programs part, the most telling first."""
    groups: dict[tuple[Site, ...], list[tuple[CheckResult, Finding]]] = {}
    keys: dict[tuple[str, ...], tuple[Site, ...]] = {}
    for check, finding in refused(case, candidate):
        found = sites(case, finding.source, candidate)
        key = tuple(f"{site.equation.operation} {site.equation.file} {site.equation.line}" for site in found)
        groups.setdefault(keys.setdefault(key, found), []).append((check, finding))
    return tuple(
        Divergence(
            found,
            tuple(Seen(check.check, finding.place, judged(finding).words) for check, finding in places),
            tuple(line for line in values(places[0][1], case.reference, candidate) if line != places[0][1].source),
        )
        for found, places in groups.items()
    )
