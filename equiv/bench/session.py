"""The order of a bench run: every case judged first, then timed; what is refuted is not timed."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from equiv.backends.environment import environment
from equiv.bench.case_costs import price, refuse_under_xdist
from equiv.bench.depth_scaling import grow
from equiv.compare.pipeline import conclude, run_cases
from equiv.core.case_files import CaseFile, LoadedCase, load
from equiv.core.headline import reason
from equiv.core.results import CaseResult, RunResult
from equiv.errors import EquivError
from equiv.programs.built_case import open_workshop

Progress = Callable[[str], None]
"""Told what is being done."""


DECIDES = ("jax", "jaxlib", "flax", "dm-haiku", "platform", "device")
"""What of an environment a verdict depends on: another release, another verdict."""


TIMED = ("same", "inconclusive")


def bench_cases(
    files: list[CaseFile],
    stored: RunResult | None,
    seconds: float,
    progress: Progress = lambda _: None,
    advance: Callable[[], None] = lambda: None,
) -> RunResult:
    """Judge every case, or take its stored verdict, and time what is not refuted.

    Args:
        files: the cases.
        stored: results whose verdicts are taken where they are of the same text and environment.
        seconds: for how long each case is timed.
        progress: told what is being done.
        advance: told when a case has been judged, and when it has been timed.

    Raises:
        NotRun: pytest-xdist runs several processes at once.
    """
    refuse_under_xdist()
    started, clock = datetime.now(UTC), time.perf_counter()
    known = _usable(stored)
    loaded = {file.name: _loaded(file) for file in files}
    judged = {name: known[name] for name, one in loaded.items() if _same_text(known.get(name), one)}
    for _ in judged:
        advance()
    for case in run_cases([file for file in files if file.name not in judged], progress):
        judged[case.name] = case
        advance()
    problems: list[str] = []
    for name, one in loaded.items():
        try:
            if isinstance(one, LoadedCase) and not judged[name].problem:
                judged[name] = _timed(one, judged[name], seconds, progress, problems)
        except KeyboardInterrupt:
            # What has been timed is kept; the rest is said to be missing.
            missing = [other for other in list(loaded)[list(loaded).index(name) :] if judged[other].costs is None]
            problems.append(f"interrupted: not timed: {', '.join(missing)}")
            break
        advance()
    cases = [*(judged[name] for name in loaded), *(case for name, case in known.items() if name not in loaded)]
    result = conclude(cases, started, time.perf_counter() - clock)
    return replace(result, problems=(*result.problems, *problems))


def _usable(stored: RunResult | None) -> dict[str, CaseResult]:
    if stored is None:
        return {}
    here = environment()
    for name in DECIDES:
        if (there := stored.environment.get(name, "unknown")) != here[name]:
            raise EquivError(
                f"the results are of {name} {there}, here it is {here[name]}: a verdict is not taken from one to the "
                "other. Leave out --results, and the cases are judged here."
            )
    return {case.name: case for case in stored.cases}


def _loaded(file: CaseFile) -> LoadedCase | EquivError:
    try:
        return load(file)
    except EquivError as error:
        return error  # judging it says so


def _same_text(case: CaseResult | None, loaded: LoadedCase | EquivError) -> bool:
    return case is not None and isinstance(loaded, LoadedCase) and case.text == loaded.text and not case.problem


def withheld(case: CaseResult) -> dict[str, str]:
    """The candidates that are not timed, with the reason: the cost of another model says nothing."""
    return {who: f"{word}: {reason(case, who)}" for who, word in case.verdicts.items() if word not in TIMED}


def _timed(loaded: LoadedCase, case: CaseResult, seconds: float, progress: Progress, problems: list[str]) -> CaseResult:
    try:
        workshop = open_workshop(loaded.case)
        told = lambda what: progress(f"{case.name}: {what}")  # noqa: E731
        costs = price(workshop, withheld(case), seconds, told)
        growth = grow(loaded.case, costs.withheld, seconds, told)
    except EquivError as error:
        problems.append(f"{case.name} is not timed: {error}")
        return case
    return replace(case, costs=replace(costs, growth=growth))
