"""A checkpoint in several files, as `save_pretrained` of Hugging Face's transformers writes one above 10 GB.

The files are called `flax_model-00001-of-00003.msgpack` and so on, each with some of the leaves under their whole paths
(transformers 4.57, `modeling_flax_utils.py`, `flax_shard_checkpoint`), and any of them stands for all.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equiv.conversion.formats.checkpoint import Checkpoint, CheckpointError
from equiv.conversion.formats.tree_paths import TreePath, path_text

SHARD = re.compile(r"(?P<before>.+-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
"""The name of one file of several."""

MAX_SHARDS = 10_000
"""Maximal number of files: more is a mistake in the name."""


def shards_of(file: Path) -> tuple[Path, ...]:
    """All files of the checkpoint that a file is a part of, in order; empty: it is a whole checkpoint by its name.

    Raises:
        CheckpointError: one of them is missing, or the name has a number that there is not.
    """
    found = SHARD.fullmatch(file.name)
    if found is None:
        return ()
    number, count = int(found["number"]), int(found["count"])
    if not 1 <= number <= count <= MAX_SHARDS:
        raise CheckpointError(
            f"{file}: its name says that it is part {number} of {count}.", fix="Rename it to what it is a part of."
        )
    parts = tuple(
        file.with_name(f"{found['before']}{part:05d}-of-{found['count']}{found['suffix']}")
        for part in range(1, count + 1)
    )
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{file}: it is part {number} of {count}, and {len(missing)} of the others are not beside it, first "
            f"{missing[0]}.",
            fix="Copy all parts: missing leaves are not filled in.",
        )
    return parts


def join_shards(file: Path, parts: Sequence[Checkpoint]) -> Checkpoint:
    """Join opened parts to one checkpoint.

    Args:
        file: the part that was given.
        parts: all of them.

    Raises:
        CheckpointError: two have a leaf of the same path.
    """
    home: dict[TreePath, Checkpoint] = {}
    for part in parts:
        for path in part.leaves:
            if path in home:
                raise CheckpointError(
                    f"{file}: leaf {path_text(path)!r} is in {home[path].file.name} and in {part.file.name}.",
                    fix="Give the parts of one checkpoint.",
                    leaf=path_text(path),
                )
            home[path] = part

    def read(path: TreePath) -> np.ndarray:
        return home[path].read(path)

    def close() -> None:
        for part in parts:
            part.close()

    return Checkpoint(file, parts[0].format, {path: part.leaves[path] for path, part in home.items()}, read, close)
