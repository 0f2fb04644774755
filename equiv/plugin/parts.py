"""What pytest processes know of cases, as lines: kept in memory, or in a file that outlives a killed worker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from equiv.results import CaseResult, RunResult, Verdict
from equiv.summary import summarise

WORST: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")


@dataclass(frozen=True)
class Line:
    """One event of one case.

    Attributes:
        event: `collected` for running, `begun` to be judged, `judged`.
        key: what the case is filed under: pytest's id of its file, or of the test that made it.
        name: the case's name.
        worker: pytest-xdist's id of the worker; empty without.
        environment: where it was judged.
        result: what was found.
    """

    event: Literal["collected", "begun", "judged"]
    key: str
    name: str
    worker: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    result: CaseResult | None = None


def append(path: Path, line: Line) -> None:
    """Add a line to a worker's file, and leave nothing of it in a buffer."""
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(line) + b"\n")


def read_parts(folder: Path) -> list[Line]:
    """The lines of all workers; one that was cut off when its worker was killed is left out, its case is missing."""
    lines = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: (len(path.name), path.name)):
        for text in path.read_bytes().split(b"\n")[:-1]:
            lines.append(msgspec.json.decode(text, type=Line))
    return lines


def conclude(lines: Sequence[Line], died: Sequence[str], started: str, seconds: float) -> RunResult:
    """All lines of a run under one verdict; a case that has no result is named in its problems.

    Args:
        lines: of all processes.
        died: workers that did not come to their end.
        started: when the run began, ISO 8601.
        seconds: how long it took.
    """
    judged: dict[str, Line] = {}
    problems: list[str] = []
    for line in lines:
        if line.result is None:
            continue
        first = judged.setdefault(line.key, line)
        if (apart := _disagree(first, line)) is not None:
            problems.append(apart)
            judged[line.key] = min(first, line, key=_worst)
    missing = _missing(lines, judged, died)
    order = list(dict.fromkeys(line.key for line in lines))
    cases = [line.result for key in order if (line := judged.get(key)) and line.result is not None]
    verdict, headline = summarise(cases)
    if missing and (verdict == "same" or not cases):
        verdict = "inconclusive"
        headline = (
            f"Inconclusive: {len(missing)} of {len(missing) + len(cases)} cases have no result. First: {missing[0]}"
        )
    environments = [line for line in lines if line.environment]
    environment = environments[0].environment if environments else {}
    problems += [apart for line in environments[1:] if (apart := _moved(environments[0], line))]
    return RunResult(
        verdict, headline, environment, tuple(cases), started, round(seconds, 3), problems=(*missing, *problems)
    )


def _missing(lines: Sequence[Line], judged: dict[str, Line], died: Sequence[str]) -> list[str]:
    missing = []
    for key, name in {line.key: line.name for line in lines if line.key not in judged}.items():
        begun = [line.worker for line in lines if line.key == key and line.event == "begun"]
        if dead := [worker for worker in begun if worker in died]:
            why = f"worker {dead[-1]} died while judging it"
        else:
            why = "the run ended while it was judged" if begun else "the run ended before"
        missing.append(f"{name}: no result: {why}. Run it again: pytest {key}")
    return missing


def _worst(line: Line) -> int:
    verdicts = list(line.result.verdicts.values()) if line.result else []
    return min(map(WORST.index, verdicts), default=0)


def _disagree(first: Line, other: Line) -> str | None:
    if first.result is None or other.result is None or first.result.verdicts == other.result.verdicts:
        return None
    says = [
        f"{line.worker} says {', '.join(f'{who} {verdict}' for who, verdict in line.result.verdicts.items())}"
        for line in (first, other)
        if line.result is not None
    ]
    return f"{first.name}: {' and '.join(says)}. The worse is kept; look for chance in its builders"


def _moved(first: Line, other: Line) -> str | None:
    """What differs in the environment of two results: they are not of one run, then."""
    for name, value in first.environment.items():
        if (here := other.environment.get(name, "")) != value:
            return f"{other.name} was judged with {name} {here!r}, {first.name} with {value!r}"
    return None
