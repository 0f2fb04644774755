"""What pytest processes know of cases, as lines: kept in memory, or in a file that outlives a killed worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from equiv.core.grades import Verdict
from equiv.core.headline import summarise
from equiv.core.results import CaseResult, RunResult

WORST: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")


@dataclass(frozen=True)
class Line:
    """One event of one case.

    Attributes:
        event: `collected` for running, `begun` to be judged, `judged`.
        key: what the case is filed under: pytest's id of its file, or of the test that made it.
        name: the case's name.
        worker: pytest-xdist's id of the worker; empty without.
        run: what was found, as a run of this case alone.
    """

    event: Literal["collected", "begun", "judged"]
    key: str
    name: str
    worker: str = ""
    run: RunResult | None = None


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
        if line.run is None:
            continue
        first = judged.setdefault(line.key, line)
        if (apart := _disagree(first, line)) is not None:
            problems.append(apart)
            judged[line.key] = min(first, line, key=_worst)
    missing = _missing(lines, judged, died)
    found = [judged[key] for key in dict.fromkeys(line.key for line in lines) if key in judged]
    runs = [line.run for line in found if line.run is not None]
    cases = [case for run in runs for case in run.cases]
    verdict, headline = summarise(cases)
    if missing and (verdict == "same" or not cases):
        counts = f"{len(missing)} of {len(missing) + len(cases)} cases have no result"
        verdict, headline = "inconclusive", f"Inconclusive: {counts}. First: {missing[0]}"
    environments = [run.environment for run in runs if run.environment]
    problems += [apart for line in found if environments and (apart := _moved(found[0].name, environments[0], line))]
    return RunResult(
        verdict,
        headline,
        environments[0] if environments else {},
        tuple(cases),
        started,
        round(seconds, 3),
        problems=(*missing, *problems),
        rewrites={name: condition for run in runs for name, condition in run.rewrites.items()},
    )


def alone(result: CaseResult, environment: Mapping[str, str]) -> RunResult:
    """A case as a run of its own."""
    verdict, headline = summarise([result])
    return RunResult(verdict, headline, dict(environment), (result,), "", result.seconds)


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
    return min(map(WORST.index, _verdicts(line).values()), default=0)


def _verdicts(line: Line) -> dict[str, Verdict]:
    return {who: verdict for case in (line.run.cases if line.run else ()) for who, verdict in case.verdicts.items()}


def _disagree(first: Line, other: Line) -> str | None:
    if _verdicts(first) == _verdicts(other):
        return None
    says = [
        f"{line.worker} says {', '.join(f'{who} {verdict}' for who, verdict in _verdicts(line).items()) or 'error'}"
        for line in (first, other)
    ]
    return f"{first.name}: {' and '.join(says)}. The worse is kept; look for chance in its builders"


def _moved(first: str, environment: Mapping[str, str], line: Line) -> str | None:
    """What is otherwise in the environment of a result than in the first: they are not of one run, then."""
    here = line.run.environment if line.run else {}
    for name, value in environment.items() if here else ():
        if here.get(name) != value:
            return f"{line.name} was judged with {name} {here.get(name)!r}, {first} with {value!r}"
    return None
