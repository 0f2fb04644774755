"""Share processors and devices among processes."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

MEMORY_OF_A_PROCESS = 2 * 10**9
"""Bytes that a process is counted with by `automatic_jobs`: twice what the cases of the guides take at most."""


def automatic_jobs() -> int:
    """As many processes as this one may use processors, and as fit into the memory that is free; at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(processors, psutil.virtual_memory().available // MEMORY_OF_A_PROCESS))


def share_devices(number: int, environ: Mapping[str, str], gpus: int) -> dict[str, str]:
    """Make the environment variables of one of several processes, set before JAX starts; those set by the user stay.

    JAX preallocates three quarters of a GPU's memory in each process, so a second one would fail; and every process
    would use the first of several GPUs.

    Args:
        number: of the process, from 0 on.
        environ: the current environment.
        gpus: how many NVIDIA GPUs the machine has.
    """
    wanted = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if gpus else {}
    if gpus > 1:
        wanted["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    return {name: value for name, value in wanted.items() if name not in environ}


def gpus_here() -> int:
    """Count the NVIDIA GPUs of this machine without JAX."""
    return len([path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])
