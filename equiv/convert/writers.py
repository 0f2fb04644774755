"""Leaves to a checkpoint on disk, of any format but pickle."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.convert.checkpoint import CheckpointError, Leaf
from equiv.convert.tree import Empty, TreePath

FORMATS = ("npz", "safetensors", "msgpack", "orbax")


@dataclass(frozen=True)
class Outgoing:
    """A checkpoint to be written.

    Attributes:
        leaves: its leaves.
        empties: nodes without leaves, which nested formats keep and flat ones cannot.
        tree: leaves by path to the library's own tree, as a user would save it with orbax.
    """

    leaves: Sequence[Leaf]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


def format_for(file: Path, asked: str | None) -> str:
    """The format that is asked for, or that the suffix says; a name without a suffix is a folder of orbax.

    Raises:
        CheckpointError: neither says one that can be written.
    """
    said = asked or (file.suffix.lower().removeprefix(".") or "orbax")
    if said not in FORMATS:
        raise CheckpointError(
            f"{file}: cannot write {said!r}. Say --format with one of {', '.join(FORMATS)}, or give a suffix of them."
        )
    return said


def write(file: Path, format: str, outgoing: Outgoing) -> None:
    """Write a checkpoint, leaf by leaf.

    Raises:
        CheckpointError: a leaf cannot be made or written.
    """
    module = importlib.import_module(f"equiv.convert.formats.{format}")
    if format == "orbax":
        module.write(file, outgoing.leaves, outgoing.tree)
    elif format == "msgpack":
        module.write(file, outgoing.leaves, outgoing.empties)
    else:
        module.write(file, outgoing.leaves)
