"""A loaded case to its result, whatever happens; and the device it is judged on."""

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult, RunResult
from equiv.errors import EquivError
from equiv.frontends.pytest_plugin.worker_results import alone


def judge(loaded: LoadedCase, require: str) -> RunResult:
    """A case as `equiv run` judges it, as a run of its own: one that cannot be used is a result too.

    Args:
        loaded: the case.
        require: the platform that must be there; empty: any.
    """
    started, clock, found = datetime.now(UTC), time.perf_counter(), {}
    try:
        from equiv.compare.pipeline import conclude, run_case

        found, problem = surroundings(require)
        if not problem:
            result = run_case(loaded)
            seconds = round(time.perf_counter() - clock, 3)
            return conclude([replace(result, seconds=seconds)], started, seconds)
    except EquivError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - as in `equiv run`: the other cases still finish
        problem = f"equiv itself failed with {type(error).__name__}: {error}. Please report it with the case file."
    seconds = round(time.perf_counter() - clock, 3)
    result = CaseResult(loaded.name, loaded.lesson, "", "", (), {}, (), problem=problem, seconds=seconds)
    return alone(result, found)


def surroundings(require: str) -> tuple[dict[str, str], str]:
    """The environment, and why nothing is to be run in it; empty where its platform is the one that must be there.

    Raises:
        NotRun: JAX finds no device.
    """
    from equiv.backends.environment import environment

    found = environment()
    import jax

    try:
        there = not require or jax.devices()[0] in jax.devices(require)
    except RuntimeError:  # unknown to JAX, or not initialised
        there = False
    if there:
        return found, ""
    return found, (
        f"{require} is required and not there: JAX runs on {found['platform']} ({found['device']}). "
        f"Install the {require} build of jax, or leave out --equiv-require."
    )


def share_devices(worker: str, environ: Mapping[str, str], gpus: int) -> dict[str, str]:
    """What a pytest-xdist worker adds to its environment before JAX starts; what the user has set stays.

    JAX takes three quarters of a GPU's memory for each process, so the second worker would fail; and every worker
    would use the first of several GPUs.

    Args:
        worker: its id, `gw3`.
        environ: the environment as it is.
        gpus: how many NVIDIA GPUs the machine has.
    """
    number = int(re.sub(r"\D", "", worker) or 0)
    wanted = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if gpus else {}
    if gpus > 1:
        wanted["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    return {name: value for name, value in wanted.items() if name not in environ}


def gpus_here() -> int:
    """How many NVIDIA GPUs this machine has, asked without JAX."""
    return len([path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])
