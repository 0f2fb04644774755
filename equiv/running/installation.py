"""What results follow from besides a case: Python, installed packages, settings, and equiv's own sources."""

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

VARIABLES = ("JAX_", "XLA_", "EQUIV_COMPILED")
"""Beginnings of the names of environment variables that change results."""


@cache
def digest_installation() -> str:
    """A digest of Python, every installed package, equiv's own sources, and the settings of JAX."""
    found = sorted({f"{one.name} {one.version}" for one in metadata.distributions()})
    found += [platform.python_version(), platform.machine()]
    found += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)]
    content = hashlib.sha256("\n".join(found).encode(errors="surrogateescape"))
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
