"""The builders of a case as columns, with marks where the ports first differ or depart from the guide."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from equiv.core.results import BuilderSource, CaseResult, CheckResult, DeviationResult
from equiv.report.findings.possible_causes import failed_findings
from equiv.report.findings.source_lines import difference_sites, is_same_file
from equiv.report.html.views.code import CodeLine, align_builders


@dataclass(frozen=True)
class DeviationNote:
    """A deviation from the guide, with the builder lines that it is about, where they can be found."""

    number: int
    lines: tuple[int, ...]
    deviation: DeviationResult


@dataclass(frozen=True)
class BuilderColumn:
    """One builder."""

    backend: str
    file: str
    role: str
    lines: tuple[CodeLine, ...]
    notes: tuple[DeviationNote, ...]


def builder_columns(case: CaseResult) -> tuple[BuilderColumn, ...]:
    """Return the builders with known source, the reference first; first differences and deviations are marked."""
    names = [backend for backend in (case.reference, *case.candidates) if backend in case.sources]
    sources = [case.sources[backend] for backend in names]
    notes = [tuple(_deviation_notes(case, backend)) for backend in names]
    marks = [_line_marks(case, backend, noted) for backend, noted in zip(names, notes, strict=True)]
    made = align_builders([source.text for source in sources], [source.line for source in sources], marks)
    return tuple(
        BuilderColumn(
            backend, f"{source.file}:{source.line}", "reference" if backend == case.reference else "", lines, noted
        )
        for backend, source, lines, noted in zip(names, sources, made, notes, strict=True)
    )


def _deviation_notes(case: CaseResult, backend: str) -> Iterator[DeviationNote]:
    for number, deviation in enumerate(case.deviations, 1):
        if deviation.backend == backend:
            yield DeviationNote(number, _quoted_lines(case.sources[backend], deviation.works), deviation)


def _quoted_lines(source: BuilderSource, works: str) -> tuple[int, ...]:
    """Return the lines with the code that `works` quotes in backticks; a bare name is too short to find a line."""
    quoted = [
        re.sub(r"\s+|\.\.\.", "", code) for code in re.findall(r"`([^`]+)`", works) if re.search(r"[(\[=@]", code)
    ]
    found = []
    for offset, text in enumerate(source.text.split("\n")):
        plain = re.sub(r"\s+", "", text).replace('"', "'")
        if any(code.replace('"', "'").rstrip(")") in plain for code in quoted if len(code) > 4):
            found.append(source.line + offset)
    return tuple(found)


def _line_marks(case: CaseResult, backend: str, notes: tuple[DeviationNote, ...]) -> dict[int, tuple[str, str]]:
    """Return the marks by line; a first difference takes precedence over a deviation from the guide."""
    marks = {
        line: ("note", f"differs from the guide, which prints {note.deviation.prints}")
        for note in notes
        for line in note.lines
    }
    first_differences: dict[int, tuple[str, str]] = {}
    for candidate in case.candidates if backend == case.reference else (backend,):
        for check, finding in failed_findings(case, candidate):
            for site in difference_sites(case, finding, candidate):
                if site.code and (line := site.equation.user_line) and site.equation.port == backend:
                    why = f"first difference for {check.check}, {finding.place}: {site.equation.primitive}"
                    first_differences.setdefault(line.line, ("differs", why))
        lost = next(
            (point for check in _candidate_checks(case, candidate) for point in check.intermediates if point.lost), None
        )
        line = lost.location if lost and backend == case.reference else None
        if lost and line and is_same_file(line.file, case.sources[backend].file):
            why = f"values of {candidate} differ from here on: {lost.name}"
            first_differences.setdefault(line.line, ("differs", why))
    return marks | first_differences


def _candidate_checks(case: CaseResult, candidate: str) -> list[CheckResult]:
    return [check for check in case.checks if check.candidate == candidate]
