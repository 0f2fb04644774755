"""Settings of the whole test suite."""

import shutil
import tempfile
from pathlib import Path

import jax
import pytest

CACHE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is compiled: many tests compare one reference with ports that differ in a line, and compile it again.

    Each process has a folder of its own, since jax (0.10.2, `lru_cache.py`) writes its files in place.
    """
    config.stash[CACHE] = Path(tempfile.mkdtemp(prefix="equiv-compiled-"))
    jax.config.update("jax_compilation_cache_dir", str(config.stash[CACHE]))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    shutil.rmtree(config.stash[CACHE], ignore_errors=True)
