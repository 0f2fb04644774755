"""The environment of a run: everything that can change its numbers."""

import os
import platform
import subprocess
from importlib import metadata

import jax

from equiv.backends.registry import all_libraries
from equiv.core.environment import COMPILER_DISTRIBUTIONS, NUMERIC_SETTINGS, OTHER_DISTRIBUTIONS
from equiv.errors import EquivError, NotRun, error_summary


def recorded_distributions() -> tuple[str, ...]:
    """The packages whose versions are recorded: what every model needs, and what each library is installed as."""
    libraries = sorted(all_libraries(), key=lambda library: library.naming_rank)
    names = dict.fromkeys(name for library in libraries for name in library.distributions)
    return *COMPILER_DISTRIBUTIONS, *names, *OTHER_DISTRIBUTIONS


def describe_environment() -> dict[str, str]:
    """Library versions, device, settings that change numerics, and the git commit.

    Raises:
        NotRun: JAX finds no device.
        EquivError: this is one of several processes of `jax.distributed`.
    """
    try:
        devices = jax.devices()
    except Exception as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise NotRun(
            f"JAX finds no device for JAX_PLATFORMS={platforms!r}: {error_summary(error)}.",
            fix="Install the plugin, or unset it.",
        ) from error
    refuse_several_processes()
    return {
        "python": platform.python_version(),
        **{name: _distribution_version(name) for name in recorded_distributions()},
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": str(len(devices)),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: str(getattr(jax.config, name, "")) for name in NUMERIC_SETTINGS},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "commit": _git_commit(),
    }


def refuse_several_processes() -> None:
    """Refuse to run in one of several processes of `jax.distributed`: each would do the work of all.

    Raises:
        EquivError: there are several.
    """
    if (count := jax.process_count()) > 1:
        raise EquivError(
            f"jax.distributed: this is process {jax.process_index()} of {count}, and each of them would compare every "
            "case by itself, with no array in parts on the others.",
            fix="Run equiv in one process, without jax.distributed.initialize: the meshes of a case take its devices; "
            "--shard and --scheduler spread cases over machines.",
        )


def _distribution_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown: git is not installed"
    return done.stdout.strip() or "unknown: not in a git checkout"
