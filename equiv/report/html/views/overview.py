"""The matrix: one row a comparison, one column a check, the worst first; and the filters above it."""

from collections.abc import Sequence
from dataclasses import dataclass

from equiv.core.grades import Verdict
from equiv.core.headline import verdict_words
from equiv.core.results import CHECKS
from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS, cell
from equiv.report.html.anchors import anchor
from equiv.report.runs.merge import SEVERITY, Entry

STATES = {"expected": "meant", "refuted": "bad", "error": "bad", "": "none"} | dict.fromkeys(
    ("blocked", "not run", "vacuous", "unidentifiable"), "warn"
)
"""Grade to the state that a style is made for; any other equality is `good`."""


VERDICT_STATES: dict[Verdict, str] = {"same": "good", "different": "bad", "error": "bad", "inconclusive": "warn"}


def state_of(grade: str) -> str:
    """`good`, `meant`, `warn`, `bad` or `none`."""
    return STATES.get(grade, "good")


@dataclass(frozen=True)
class Cell:
    """A check of a comparison: its words, its state."""

    text: str
    state: str


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes:
        case: its case.
        candidate: its candidate.
        reference: what that is compared with.
        label: platform and what tells it from another run.
        link: to its case.
        kind: what the filters go by: `different`, `error`, `inconclusive`, `not run` or `same`.
        verdict: in words.
        cells: one a check.
    """

    case: str
    candidate: str
    reference: str
    label: str
    link: str
    kind: str
    verdict: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Filter:
    """A button above the matrix: what it shows, and how many."""

    kind: str
    label: str
    count: int


def rank(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The worst first; among equals in the order given."""
    return tuple(sorted(entries, key=lambda entry: entry.worst))


def rows(ranked: Sequence[Entry]) -> tuple[Row, ...]:
    """Every comparison, failures first; a case that could not be used has a row of its own."""
    found: list[tuple[int, Row]] = []
    for entry in ranked:
        case = entry.case
        if case.problem:
            words = Cell(f"{VERDICT_SIGNS['error']} not usable", "bad")
            empty = (Cell(NOT_ASKED, "none"),) * len(CHECKS)
            found.append((0, Row(case.name, NOT_ASKED, NOT_ASKED, entry.label, anchor(entry), "error", words, empty)))
        for candidate in case.candidates:
            verdict = case.verdicts[candidate]
            cells = tuple(Cell(text, state_of(grade)) for text, grade in (cell(case, candidate, one) for one in CHECKS))
            words = Cell(f"{VERDICT_SIGNS[verdict]} {verdict_words(case, candidate)}", VERDICT_STATES[verdict])
            row = Row(
                case.name, candidate, case.reference, entry.label, anchor(entry), _kind(entry, candidate), words, cells
            )
            found.append((SEVERITY.index(verdict), row))
    return tuple(row for _, row in sorted(found, key=lambda pair: pair[0]))


def _kind(entry: Entry, candidate: str) -> str:
    verdict = entry.case.verdicts[candidate]
    grades = {check.grade for check in entry.case.checks if check.candidate == candidate}
    return "not run" if verdict == "inconclusive" and "not run" in grades else verdict


def filters(rows: Sequence[Row]) -> tuple[Filter, ...]:
    """All, and every kind that there is; a kind without rows has no button, but `not run` is always counted."""
    kinds = [row.kind for row in rows]
    made = [
        Filter(kind, label, kinds.count(kind))
        for kind, label in (
            ("different", "\N{BALLOT X} different"),
            ("error", "! error"),
            ("inconclusive", "? inconclusive"),
            ("not run", "\N{HORIZONTAL ELLIPSIS} not run"),
            ("same", "\N{CHECK MARK} same"),
        )
        if kind in kinds or kind == "not run"
    ]
    return (Filter("", "all", len(kinds)), *made)
