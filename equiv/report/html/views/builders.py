"""The builders of a case as columns, with marks: where the ports first differ, and where the case leaves the guide."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from equiv.core.results import CaseResult, CheckResult, DeviationResult, Source
from equiv.report.findings.likely_causes import refused
from equiv.report.findings.source_lines import is_file, sites
from equiv.report.html.views.code import CodeLine, columns


@dataclass(frozen=True)
class Note:
    """A deviation from the guide: the lines of the builder that it is about, if they can be told."""

    number: int
    lines: tuple[int, ...]
    deviation: DeviationResult


@dataclass(frozen=True)
class Column:
    """One builder."""

    backend: str
    file: str
    role: str
    lines: tuple[CodeLine, ...]
    notes: tuple[Note, ...]


def builders(case: CaseResult) -> tuple[Column, ...]:
    """The builders that have a source, the reference first; lines that first differ and deviations are marked."""
    names = [backend for backend in (case.reference, *case.candidates) if backend in case.sources]
    sources = [case.sources[backend] for backend in names]
    notes = [tuple(_notes(case, backend)) for backend in names]
    marks = [_marks(case, backend, noted) for backend, noted in zip(names, notes, strict=True)]
    made = columns([source.text for source in sources], [source.line for source in sources], marks)
    return tuple(
        Column(backend, f"{source.file}:{source.line}", "reference" if backend == case.reference else "", lines, noted)
        for backend, source, lines, noted in zip(names, sources, made, notes, strict=True)
    )


def _notes(case: CaseResult, backend: str) -> Iterator[Note]:
    for number, deviation in enumerate(case.deviations, 1):
        if deviation.backend == backend:
            yield Note(number, _lines_of(case.sources[backend], deviation.works), deviation)


def _lines_of(source: Source, works: str) -> tuple[int, ...]:
    """The lines that hold what works, as far as it is quoted in backticks; a mere name tells no line."""
    quoted = [
        re.sub(r"\s+|\.\.\.", "", code) for code in re.findall(r"`([^`]+)`", works) if re.search(r"[(\[=@]", code)
    ]
    found = []
    for offset, text in enumerate(source.text.splitlines()):
        plain = re.sub(r"\s+", "", text).replace('"', "'")
        if any(code.replace('"', "'").rstrip(")") in plain for code in quoted if len(code) > 4):
            found.append(source.line + offset)
    return tuple(found)


def _marks(case: CaseResult, backend: str, notes: tuple[Note, ...]) -> dict[int, tuple[str, str]]:
    """Lines with a mark: where the programs part comes before where the case leaves the guide."""
    marks = {
        line: ("note", f"not as the guide has it: it prints {note.deviation.prints}")
        for note in notes
        for line in note.lines
    }
    parted: dict[int, tuple[str, str]] = {}
    for candidate in case.candidates if backend == case.reference else (backend,):
        for check, finding in refused(case, candidate):
            for site in sites(case, finding.source, candidate):
                if site.code and site.equation.backend == backend:
                    why = f"first different for {check.check}, {finding.place}: {site.equation.operation}"
                    parted.setdefault(site.equation.line, ("differs", why))
        lost = next((point for check in _checks(case, candidate) for point in check.walk if point.lost), None)
        if lost and backend == case.reference:
            file, _, line = lost.where.rpartition(":")
            if line.isdigit() and is_file(file, case.sources[backend].file):
                parted.setdefault(int(line), ("differs", f"from here on {candidate} has other values: {lost.name}"))
    return marks | parted


def _checks(case: CaseResult, candidate: str) -> list[CheckResult]:
    return [check for check in case.checks if check.candidate == candidate]
