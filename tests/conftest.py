"""Settings of the whole test suite."""

import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from equiv.running.worker import GC_THRESHOLDS

FOLDER = "EQUIV_TESTS_COMPILED"
"""Environment variable: the folder with what the processes of one test run have compiled."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is compiled: many tests compare one reference with ports that differ in a line, and compile it again.

    All processes of a run share the folder: the workers of pytest-xdist, and what tests start. jax (0.10.2,
    `lru_cache.py`) writes its files in place, so one that another process has not written to its end cannot be
    decompressed; jax compiles then.
    """
    gc.set_threshold(*GC_THRESHOLDS)  # as where users run cases
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="equiv-compiled-")
    for name, value in list_cache_settings().items():
        jax.config.update(name.lower(), value)


def list_cache_settings() -> dict[str, str | int]:
    """The settings with which jax keeps all that it compiles."""
    return {
        "JAX_COMPILATION_CACHE_DIR": os.environ[FOLDER],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",  # their folder would be part of every key
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(FOLDER), ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is `slow`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `quick(n)` only the first n sets of parameters run always; the others are `slow`."""
    seen = Counter[tuple[Path, str]]()
    for item in items:
        if isinstance(item, pytest.Function) and (mark := item.get_closest_marker("quick")):
            test = item.path, item.originalname
            seen[test] += 1
            if seen[test] > mark.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def the_compiler_is_not_asked() -> Iterator[None]:
    """Leave out the check `compiled` and processes of cases, and write nothing to the user's own cache.

    Processes of tests do so too.

    The check compiles each port once more, which tests of other checks need not wait for, and what is said of known
    miscompilations depends on the release of jax. Their own tests ask for both.
    """
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        patch.setenv("EQUIV_COMPILED", "0")
        for name, value in list_cache_settings().items():
            patch.setenv(name, str(value))
        patch.setenv("EQUIV_ISOLATE", "0")  # a process of its own for every case would import jax once more
        yield


@pytest.fixture(scope="module")
def serial() -> Iterator[None]:
    """Let a worker of pytest-xdist time something, which is refused there: the programs of these tests are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield
