"""The releases of jax and flax that comparing is tested on, and a check of what is installed. No jax is imported."""

import os
import re
from importlib import metadata

from equiv.errors import NotRun

COMPARING = {"jax": "0.10", "flax": "0.12.8", "optax": "0.2.6", "numpy": "2.1"}
"""Package to the oldest release on which ports are compared, as the extra `compare` of pyproject.toml has them.

equiv itself installs from jax 0.4.35 and flax 0.8 on, so that it upgrades nothing where an old model lives: there
`equiv freeze` runs, and another environment compares.
"""

UNTESTED = "EQUIV_UNTESTED_RELEASES"
"""Variable of the environment; where it is set, older releases are used all the same."""


def read_release(version: str) -> tuple[int, ...]:
    """The numbers of a version, `0.12.8.dev3` as (0, 12, 8)."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[a-z+]|\.dev|\.post", version)[0]))


def check_releases() -> None:
    """Refuse to compare ports where a package is older than comparing is tested on.

    Raises:
        NotRun: one is, and `EQUIV_UNTESTED_RELEASES` is not set; a package that is not installed is no part of this.
    """
    if os.environ.get(UNTESTED):
        return
    for name, oldest in COMPARING.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if read_release(installed) < read_release(oldest):
            raise NotRun(
                f"{name} {installed} is installed, and ports are compared from {name} {oldest} on.",
                fix="Save the old model here with equiv freeze, and judge its port with equiv run --against in an "
                "environment of its own, made by pip install 'equiv[compare]'.",
            )
