"""The order of a bench run: every case is compared first, then timed; a refuted candidate is not timed."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from equiv.backends.environment import describe_environment
from equiv.backends.patches import isolate_import
from equiv.backends.sharding import within_case
from equiv.bench.case_costs import measure_costs, refuse_under_xdist
from equiv.bench.depth_scaling import measure_growth
from equiv.comparison.pipeline import make_run_result, run_cases
from equiv.core.case_files import CaseFile, LoadedCase, load_case
from equiv.core.environment import library_distributions
from equiv.core.headline import verdict_reason
from equiv.core.results import CaseResult, RunResult
from equiv.errors import EquivError
from equiv.programs.built_case import build_case

BenchProgress = Callable[[str], None]
"""Called with what is being done."""


VERDICT_ENVIRONMENT = ("jax", "jaxlib", "platform", "device")
"""What a verdict depends on besides the libraries: another release may give another verdict."""

TIMED_VERDICTS = ("same", "inconclusive")


def bench_cases(
    files: list[CaseFile],
    stored: RunResult | None,
    seconds: float,
    progress: BenchProgress = lambda _: None,
    advance: Callable[[], None] = lambda: None,
) -> RunResult:
    """Compare every case, or reuse its stored verdict, and time the candidates that are not refuted.

    Args:
        files: the cases.
        stored: results whose verdicts are reused where source text and environment are the same.
        seconds: for how long each case is timed.
        progress: called with what is being done.
        advance: called when a case has been compared, and when it has been timed.

    Raises:
        NotRun: pytest-xdist runs several processes at once.
    """
    refuse_under_xdist()
    started, clock = datetime.now(UTC), time.perf_counter()
    known = _usable(stored)
    loaded = {file.name: _load_or_error(file) for file in files}
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
                judged[name] = _with_costs(one, judged[name], seconds, progress, problems)
        except KeyboardInterrupt:
            # What has been timed is kept; the rest is listed as missing.
            missing = [other for other in list(loaded)[list(loaded).index(name) :] if judged[other].costs is None]
            problems.append(f"interrupted: not timed: {', '.join(missing)}")
            break
        advance()
    cases = [*(judged[name] for name in loaded), *(case for name, case in known.items() if name not in loaded)]
    result = make_run_result(cases, started, time.perf_counter() - clock)
    return replace(result, problems=(*result.problems, *problems))


def _usable(stored: RunResult | None) -> dict[str, CaseResult]:
    if stored is None:
        return {}
    here = describe_environment()
    for name in (*VERDICT_ENVIRONMENT, *library_distributions(here)):
        if (there := stored.environment.get(name, "unknown")) != here[name]:
            raise EquivError(
                f"--results was recorded with {name} {there}, this environment has {here[name]}: its verdicts do not "
                "apply here.",
                fix="Leave out --results, and the cases are compared first.",
            )
    return {case.name: case for case in stored.cases}


def _load_or_error(file: CaseFile) -> LoadedCase | EquivError:
    try:
        return isolate_import(lambda: load_case(file))
    except EquivError as error:
        return error  # the comparison reports it


def _same_text(case: CaseResult | None, loaded: LoadedCase | EquivError) -> bool:
    return (
        case is not None
        and isinstance(loaded, LoadedCase)
        and case.source_digest == loaded.source_digest
        and not case.problem
    )


def withheld(case: CaseResult) -> dict[str, str]:
    """The candidates that are not timed, with the reason: the cost of a different model is no comparison."""
    return {
        who: f"{word}: {verdict_reason(case, who)}" for who, word in case.verdicts.items() if word not in TIMED_VERDICTS
    }


def _with_costs(
    loaded: LoadedCase, case: CaseResult, seconds: float, progress: BenchProgress, problems: list[str]
) -> CaseResult:
    report = lambda what: progress(f"{case.name}: {what}")  # noqa: E731
    try:
        with within_case(loaded):
            costs = measure_costs(build_case(loaded.case), withheld(case), seconds, report)
            growth = measure_growth(loaded.case, costs.withheld, seconds, report)
    except EquivError as error:
        problems.append(f"{case.name} is not timed: {error}")
        return case
    return replace(case, costs=replace(costs, growth=growth))
