"""Results of pytest processes as events: kept in memory, or in a file that survives a killed worker."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from equiv.core.grades import Verdict
from equiv.core.join_runs import join_runs
from equiv.core.results import RunResult

WORST_FIRST: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")


@dataclass(frozen=True)
class CaseEvent:
    """One event of one case.

    Attributes:
        event: `collected`, `begun` to run, or `judged`.
        key: pytest's id of the case's file, or of the test that made it.
        name: the case's name.
        worker: pytest-xdist's id of the worker; empty without.
        run: the result, as a run of this case alone.
    """

    event: Literal["collected", "begun", "judged"]
    key: str
    name: str
    worker: str = ""
    run: RunResult | None = None


def append_event(path: Path, line: CaseEvent) -> None:
    """Append an event to a worker's file, unbuffered."""
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(line) + b"\n")


def read_events(folder: Path) -> list[CaseEvent]:
    """Read the events of all workers; one cut off by the death of its worker is left out, so its case is missing."""
    lines = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: (len(path.name), path.name)):
        for text in path.read_bytes().split(b"\n")[:-1]:
            lines.append(msgspec.json.decode(text, type=CaseEvent))
    return lines


def merge_events(lines: Sequence[CaseEvent], died: Sequence[str], started: str, seconds: float) -> RunResult:
    """Merge the events of a run under one verdict; a case without a result is named in its problems.

    Args:
        lines: events of all processes.
        died: workers that died.
        started: start time, ISO 8601.
        seconds: duration.
    """
    judged: dict[str, CaseEvent] = {}
    problems: list[str] = []
    for line in lines:
        if line.run is None:
            continue
        first = judged.setdefault(line.key, line)
        if (problem := _disagreement(first, line)) is not None:
            problems.append(problem)
            judged[line.key] = min(first, line, key=_verdict_rank)
    missing = _missing_cases(lines, judged, died)
    found = [judged[key] for key in dict.fromkeys(line.key for line in lines) if key in judged]
    runs = [line.run for line in found if line.run is not None]
    run = join_runs(runs, started, seconds, (*missing, *problems))
    if missing and (run.verdict == "same" or not run.cases):
        counts = f"{len(missing)} of {len(missing) + len(run.cases)} cases have no result"
        return replace(run, verdict="inconclusive", headline=f"Inconclusive: {counts}. First: {missing[0]}")
    return run


def _missing_cases(lines: Sequence[CaseEvent], judged: dict[str, CaseEvent], died: Sequence[str]) -> list[str]:
    missing = []
    for key, name in {line.key: line.name for line in lines if line.key not in judged}.items():
        begun = [line.worker for line in lines if line.key == key and line.event == "begun"]
        if dead := [worker for worker in begun if worker in died]:
            why = f"worker {dead[-1]} died while running it"
        else:
            why = "the run ended while it was running" if begun else "the run ended before it started"
        missing.append(f"{name}: no result: {why}. Run it again: pytest {key}")
    return missing


def _verdict_rank(line: CaseEvent) -> int:
    return min(map(WORST_FIRST.index, _verdicts(line).values()), default=0)


def _verdicts(line: CaseEvent) -> dict[str, Verdict]:
    return {who: verdict for case in (line.run.cases if line.run else ()) for who, verdict in case.verdicts.items()}


def _disagreement(first: CaseEvent, other: CaseEvent) -> str | None:
    if _verdicts(first) == _verdicts(other):
        return None
    says = [
        f"{line.worker} says {', '.join(f'{who} {verdict}' for who, verdict in _verdicts(line).items()) or 'error'}"
        for line in (first, other)
    ]
    return f"{first.name}: {' and '.join(says)}. The worse verdict is kept; remove randomness from its builders"
