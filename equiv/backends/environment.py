"""The environment of a run: everything that can change its numbers."""

import os
import platform
import subprocess
from importlib import metadata

import jax

from equiv.errors import NotRun, error_summary

LIBRARIES = ("equiv", "jax", "jaxlib", "flax", "dm-haiku", "optax", "numpy")

SETTINGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl")


def describe_environment() -> dict[str, str]:
    """Library versions, device, settings that change numerics, and the git commit.

    Raises:
        NotRun: JAX finds no device.
    """
    try:
        devices = jax.devices()
    except Exception as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise NotRun(
            f"JAX finds no device for JAX_PLATFORMS={platforms!r}: {error_summary(error)}. "
            "Install the plugin, or unset it."
        ) from error
    return {
        "python": platform.python_version(),
        **{name: _distribution_version(name) for name in LIBRARIES},
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": str(len(devices)),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: str(getattr(jax.config, name, "")) for name in SETTINGS},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "commit": _git_commit(),
    }


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
