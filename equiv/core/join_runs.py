"""Join the runs of single cases, each by a process of its own, to the run that was asked for."""

from collections.abc import Iterator, Mapping, Sequence

from equiv.core.headline import summarise_run
from equiv.core.results import CaseResult, RunResult

MAY_CHANGE = ("commit",)
"""Entries of an environment that may change within a run: sources have digests of their own."""


def single_case_run(result: CaseResult, environment: Mapping[str, str]) -> RunResult:
    """Wrap the result of one case in a run."""
    verdict, headline = summarise_run([result])
    return RunResult(verdict, headline, dict(environment), (result,), "", result.seconds)


def broken_case(name: str, problem: str, seconds: float = 0.0) -> CaseResult:
    """The result of a case of which nothing could be compared."""
    return CaseResult(name, "", "", "", (), {}, (), problem=problem, seconds=round(seconds, 3))


def join_runs(runs: Sequence[RunResult], started: str, seconds: float, problems: Sequence[str] = ()) -> RunResult:
    """Join runs under one verdict; a run in another environment than the first is named among the problems.

    Args:
        runs: of single cases, in order.
        started: start time, ISO 8601.
        seconds: duration.
        problems: what is known to be wrong already.
    """
    cases = [case for run in runs for case in run.cases]
    verdict, headline = summarise_run(cases)
    return RunResult(
        verdict,
        headline,
        next((run.environment for run in runs if run.environment), {}),
        tuple(cases),
        started,
        round(seconds, 3),
        problems=(*problems, *_environment_changes(runs)),
        rewrites={name: condition for run in runs for name, condition in run.rewrites.items()},
        known_miscompilations=tuple(dict.fromkeys(wrong for run in runs for wrong in run.known_miscompilations)),
    )


def _environment_changes(runs: Sequence[RunResult]) -> Iterator[str]:
    """Say how the environments of runs differ from the first one's, as within one run they must not."""
    known = [run for run in runs if run.environment and run.cases]
    for run in known[1:]:
        first = known[0]
        for name, value in first.environment.items():
            if name not in MAY_CHANGE and run.environment.get(name) != value:
                here, there = run.environment.get(name), first.cases[0].name
                yield f"{run.cases[0].name} was run with {name} {here!r}, {there} with {value!r}"
                break
