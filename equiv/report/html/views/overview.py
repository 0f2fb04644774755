"""The matrix: one row per comparison, one column per check, the worst first; and the filters above it."""

from collections.abc import Sequence
from dataclasses import dataclass

from equiv.core.grades import Verdict
from equiv.core.headline import verdict_words
from equiv.report.cells import NOT_APPLICABLE, VERDICT_SIGNS, check_cell
from equiv.report.html.anchors import anchor
from equiv.report.runs.merge import VERDICTS_WORST_FIRST, MergedCase

GRADE_STATES = {"expected": "meant", "refuted": "bad", "error": "bad", "": "none"} | dict.fromkeys(
    ("blocked", "not run", "vacuous", "unidentifiable"), "warn"
)
"""Grade to its state in the style sheet; grades that are not listed are `good`."""

VERDICT_STATES: dict[Verdict, str] = {"same": "good", "different": "bad", "error": "bad", "inconclusive": "warn"}


def grade_state(grade: str) -> str:
    """Return the state of a grade: `good`, `meant`, `warn`, `bad` or `none`."""
    return GRADE_STATES.get(grade, "good")


@dataclass(frozen=True)
class MatrixCell:
    """A check of a comparison: its text and state."""

    text: str
    state: str


@dataclass(frozen=True)
class ComparisonRow:
    """A comparison.

    Attributes:
        case: its case.
        candidate: its candidate.
        reference: the port that it is compared with.
        label: label of the run.
        link: anchor of its case.
        kind: the filter that shows it: `different`, `error`, `inconclusive`, `not run` or `same`.
        verdict: in words.
        cells: one per check.
    """

    case: str
    candidate: str
    reference: str
    label: str
    link: str
    kind: str
    verdict: MatrixCell
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True)
class MatrixFilter:
    """A button above the matrix: the rows that it shows, and their number."""

    kind: str
    label: str
    count: int


def rank_entries(entries: Sequence[MergedCase]) -> tuple[MergedCase, ...]:
    """Sort cases, the worst first; equally bad ones keep their order."""
    return tuple(sorted(entries, key=lambda entry: entry.worst))


def comparison_rows(ranked: Sequence[MergedCase], checks: Sequence[str]) -> tuple[ComparisonRow, ...]:
    """Return every comparison, failures first; a case that could not be used gets one row.

    Args:
        ranked: the cases.
        checks: the columns.
    """
    found: list[tuple[int, ComparisonRow]] = []
    for entry in ranked:
        case = entry.case
        if case.problem:
            words = MatrixCell(f"{VERDICT_SIGNS['error']} not usable", "bad")
            empty = (MatrixCell(NOT_APPLICABLE, "none"),) * len(checks)
            found.append(
                (
                    0,
                    ComparisonRow(
                        case.name, NOT_APPLICABLE, NOT_APPLICABLE, entry.label, anchor(entry), "error", words, empty
                    ),
                )
            )
        for candidate in case.candidates:
            verdict = case.verdicts[candidate]
            cells = tuple(
                MatrixCell(text, grade_state(grade))
                for text, grade in (check_cell(case, candidate, one) for one in checks)
            )
            words = MatrixCell(f"{VERDICT_SIGNS[verdict]} {verdict_words(case, candidate)}", VERDICT_STATES[verdict])
            row = ComparisonRow(
                case.name,
                candidate,
                case.reference,
                entry.label,
                anchor(entry),
                _filter_kind(entry, candidate),
                words,
                cells,
            )
            found.append((VERDICTS_WORST_FIRST.index(verdict), row))
    return tuple(row for _, row in sorted(found, key=lambda pair: pair[0]))


def _filter_kind(entry: MergedCase, candidate: str) -> str:
    verdict = entry.case.verdicts[candidate]
    grades = {check.grade for check in entry.case.checks if check.candidate == candidate}
    return "not run" if verdict == "inconclusive" and "not run" in grades else verdict


def build_filters(rows: Sequence[ComparisonRow]) -> tuple[MatrixFilter, ...]:
    """Return the filter for all rows and one per kind; kinds without rows get none, except `not run`."""
    kinds = [row.kind for row in rows]
    made = [
        MatrixFilter(kind, label, kinds.count(kind))
        for kind, label in (
            ("different", "\N{BALLOT X} different"),
            ("error", "! error"),
            ("inconclusive", "? inconclusive"),
            ("not run", "\N{HORIZONTAL ELLIPSIS} not run"),
            ("same", "\N{CHECK MARK} same"),
        )
        if kind in kinds or kind == "not run"
    ]
    return (MatrixFilter("", "all", len(kinds)), *made)
