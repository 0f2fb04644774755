"""Run a loaded case, with every error as a result; and check the device."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from equiv.core.case_files import LoadedCase
from equiv.core.join_runs import single_case_run
from equiv.core.releases import check_releases
from equiv.core.results import CaseResult, RunResult
from equiv.errors import EquivError


def run_loaded_case(loaded: LoadedCase, require: str) -> RunResult:
    """Run one case as `equiv run` does; a case that cannot be used is a result too.

    Args:
        loaded: the case.
        require: the required platform; empty: any.
    """
    started, clock, found = datetime.now(UTC), time.perf_counter(), {}
    try:
        from equiv.comparison.pipeline import make_run_result, run_case

        found, problem = check_platform(require)
        if not problem:
            result = run_case(loaded)
            seconds = round(time.perf_counter() - clock, 3)
            return make_run_result([replace(result, seconds=seconds)], started, seconds)
    except EquivError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - as in `equiv run`: the other cases still finish
        problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
    seconds = round(time.perf_counter() - clock, 3)
    result = CaseResult(loaded.name, loaded.lesson, "", "", (), {}, (), problem=problem, seconds=seconds)
    return single_case_run(result, found)


def check_platform(require: str) -> tuple[dict[str, str], str]:
    """Describe the environment, and why its platform is not the required one; empty where it is.

    Raises:
        NotRun: JAX finds no device, or is older than comparing is tested on.
    """
    check_releases()
    from equiv.backends.environment import describe_environment

    found = describe_environment()
    import jax

    try:
        there = not require or jax.devices()[0] in jax.devices(require)
    except RuntimeError:  # unknown to JAX, or not initialised
        there = False
    if there:
        return found, ""
    return found, (
        f"{require} is required but not available: JAX runs on {found['platform']} ({found['device']}). "
        f"Install the {require} build of jax, or leave out --equiv-require."
    )
