"""Arguments of the functions and commands, checked."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from equiv.errors import EquivError

T = TypeVar("T")

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def say_nothing(_: object) -> None:
    """The callback of a caller that shows no progress."""


def check_path(name: str, given: object) -> Path:
    """Check that an argument is a path.

    Raises:
        EquivError: it is not.
    """
    if not isinstance(given, str | Path):
        raise EquivError(f"{name} is {given!r}, wanted a path.", fix=f"Fix {name}.")
    return Path(given)


def select_shard(shard: str | None, files: Sequence[T]) -> list[T]:
    """Select every n-th of some files, from the k-th on.

    Args:
        shard: `k/n` with k from 1 to n; None: all of them.
        files: the files, in the same order for every part.

    Raises:
        EquivError: it cannot be read, or there are fewer files than parts.
    """
    if shard is None:
        return list(files)
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise EquivError(f"--shard {shard!r}: wanted k/n, a part from 1 to n.", fix="Write --shard 2/8.")
    if files and parts > len(files):
        raise EquivError(f"--shard {shard}: there are {len(files)} cases, fewer than parts.", fix="Give fewer parts.")
    return list(files[part - 1 :: parts])


def parse_memory(given: str | None) -> int | None:
    """Read a size, such as `4GB`, `512MiB` or a number of bytes; None where none is given.

    Raises:
        EquivError: it cannot be read.
    """
    if given is None:
        return None
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?\s*", given.lower())
    if found is None or not float(found[1]):
        raise EquivError(f"--memory {given!r}: no size.", fix="Write --memory 4GB.")
    return int(float(found[1]) * UNITS[found[2] or ""])


def parse_jobs(given: str) -> int:
    """Read a number of processes; `auto` is as many as fit.

    Raises:
        EquivError: it is neither.
    """
    if given == "auto":
        from equiv.running.devices import automatic_jobs

        return automatic_jobs()
    if re.fullmatch(r"[0-9]{1,4}", given) is None or not int(given):
        raise EquivError(f"-n {given!r}: wanted auto, or a number of processes from 1 on.", fix="Write -n 2.")
    return int(given)
