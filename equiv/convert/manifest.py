"""What was converted, leaf by leaf, beside the checkpoint: enough to check it by hand, and to come back."""

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from equiv.convert.formats.checkpoint import CheckpointError, bytes_of
from equiv.convert.formats.tree_paths import shown
from equiv.convert.plan.leaf_sources import Row
from equiv.convert.plan.plan import Plan
from equiv.convert.plan.preserved_leaves import KeptLeaf, keep
from equiv.core.leaves import LeafSpec


@dataclass(frozen=True)
class LeafRecord:
    """One leaf of a converted checkpoint.

    Attributes:
        path: in the checkpoint.
        names: canonical leaves that it holds.
        dtype: in the checkpoint.
        shape: in the checkpoint.
        sha256: of its bytes, row by row.
        origin: see `equiv.convert.plan.leaf_sources.Origin`.
        sources: paths in the old checkpoint.
        rule: see `equiv.convert.plan.leaf_sources.Row`.
    """

    path: str
    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    origin: str
    sources: tuple[str, ...]
    rule: str = ""


@dataclass(frozen=True)
class Side:
    """The old or the new checkpoint: its file name, format and library."""

    file: str
    format: str
    backend: str


@dataclass(frozen=True)
class Manifest:
    """A conversion as it was carried out.

    Attributes:
        equiv: version.
        case: whose mapping was used.
        source: the old checkpoint.
        target: the new one.
        leaves: every leaf of the new one.
        notes: what was left out or derived.
        kept: leaves that the new checkpoint cannot hold bit for bit, for the way back.
        verified: what a run of both models said; empty: they were not run.
    """

    equiv: str
    case: str
    source: Side
    target: Side
    leaves: tuple[LeafRecord, ...]
    notes: tuple[str, ...]
    kept: tuple[KeptLeaf, ...]
    verified: str = ""


def path_of(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint is."""
    return checkpoint.with_name(f"{checkpoint.name}.manifest.json")


def read(checkpoint: Path) -> Manifest | None:
    """The manifest beside a checkpoint; None where there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    file = path_of(checkpoint)
    if not os.path.lexists(file):
        return None
    if not file.is_file():
        raise CheckpointError(f"{file}: it is no manifest of a conversion: no file. Move it away to go on without it.")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise CheckpointError(
            f"{file}: it is no manifest of a conversion: {error}. Move it away to go on without it."
        ) from error


def encode(manifest: Manifest) -> bytes:
    """As JSON, for reading."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def sha256_of(array: np.ndarray) -> str:
    """The hash of an array's bytes, row by row."""
    return hashlib.sha256(bytes_of(array)).hexdigest()


def record(row: Row, sha256: str, stored: LeafSpec) -> LeafRecord:
    """The record of a leaf that has been written as `stored`."""
    names = tuple(leaf.name for leaf in row.slot.held)
    sources = tuple(shown(path) for path in row.sources)
    return LeafRecord(shown(row.slot.path), names, stored.dtype, stored.shape, sha256, row.origin, sources, row.rule)


def manifest_of(
    plan: Plan, case: str, target: Side, leaves: tuple[LeafRecord, ...], former: Manifest | None
) -> Manifest:
    """The manifest of a conversion; what a former one kept is handed on."""
    kept = {(leaf.backend, leaf.place): leaf for leaf in (*(former.kept if former else ()), *keep(plan.source))}
    old = plan.source.checkpoint
    return Manifest(
        equiv=version("equiv"),
        case=case,
        source=Side(old.file.name, old.format, plan.source.backend),
        target=target,
        leaves=leaves,
        notes=plan.notes,
        kept=tuple(kept.values()),
    )
