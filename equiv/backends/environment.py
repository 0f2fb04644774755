"""The environment of a run: whatever can change a number is recorded with it."""

import os
import platform
import subprocess
from importlib import metadata

import jax

from equiv.errors import NotRun, told

LIBRARIES = ("equiv", "jax", "jaxlib", "flax", "dm-haiku", "optax", "numpy")


SETTINGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl")


def environment() -> dict[str, str]:
    """Versions, device, settings that change numerics, and the commit."""
    try:
        devices = jax.devices()
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise NotRun(
            f"JAX finds no device for JAX_PLATFORMS={asked!r}: {told(error)}. Install the plugin, or unset it."
        ) from error
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": str(len(devices)),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: str(getattr(jax.config, name, "")) for name in SETTINGS},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown: git is not installed"
    return done.stdout.strip() or "unknown: not in a git checkout"
