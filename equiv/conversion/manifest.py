"""The manifest of a conversion, written next to the checkpoint: every leaf, and all that the way back needs."""

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from equiv.conversion.formats.checkpoint import CheckpointError, bytes_of
from equiv.conversion.formats.tree_paths import path_text
from equiv.conversion.plan.leaf_sources import PlannedLeaf
from equiv.conversion.plan.plan import Plan
from equiv.conversion.plan.preserved_leaves import PreservedLeaf, preserve_leaves
from equiv.core.leaves import LeafSpec


@dataclass(frozen=True)
class LeafRecord:
    """The record of one leaf of a converted checkpoint.

    Attributes:
        path: its path in the checkpoint.
        names: canonical leaves that it holds.
        dtype: its dtype in the checkpoint.
        shape: its shape in the checkpoint.
        sha256: of its bytes, in row-major order.
        origin: see `equiv.conversion.plan.leaf_sources.LeafOrigin`.
        sources: paths in the old checkpoint.
        rule: see `equiv.conversion.plan.leaf_sources.PlannedLeaf`.
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
class CheckpointInfo:
    """The old or the new checkpoint: its file name, format and port."""

    file: str
    format: str
    backend: str


@dataclass(frozen=True)
class Manifest:
    """The record of a conversion.

    Attributes:
        equiv: version of equiv.
        case: the case whose layer table was used.
        source: the old checkpoint.
        target: the new checkpoint.
        leaves: every leaf of the new checkpoint.
        notes: what was left out or derived.
        kept: leaves that the new checkpoint cannot hold bit for bit, for the way back.
        verified: result of running both models; empty: they were not run.
    """

    equiv: str
    case: str
    source: CheckpointInfo
    target: CheckpointInfo
    leaves: tuple[LeafRecord, ...]
    notes: tuple[str, ...]
    kept: tuple[PreservedLeaf, ...]
    verified: str = ""


def manifest_path(checkpoint: Path) -> Path:
    """Path of the manifest of a checkpoint."""
    return checkpoint.with_name(f"{checkpoint.name}.manifest.json")


def read_manifest(checkpoint: Path) -> Manifest | None:
    """Read the manifest next to a checkpoint; None where there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    file = manifest_path(checkpoint)
    if not os.path.lexists(file):
        return None
    if not file.is_file():
        raise CheckpointError(
            f"{file}: not the manifest of a conversion: it is no file.", fix="Move it away to convert without it."
        )
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: not the manifest of a conversion: {error}.", fix="Move it away to convert without it."
        ) from error


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def sha256_of(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes, in row-major order."""
    return hashlib.sha256(bytes_of(array)).hexdigest()


def leaf_record(row: PlannedLeaf, sha256: str, stored: LeafSpec) -> LeafRecord:
    """The record of a leaf that has been written as `stored`."""
    names = tuple(leaf.name for leaf in row.slot.held)
    sources = tuple(path_text(path) for path in row.sources)
    return LeafRecord(
        path_text(row.slot.path), names, stored.dtype, stored.shape, sha256, row.origin, sources, row.rule
    )


def make_manifest(
    plan: Plan, case: str, target: CheckpointInfo, leaves: tuple[LeafRecord, ...], former: Manifest | None
) -> Manifest:
    """Make the manifest of a conversion; leaves that an earlier one preserved are carried along."""
    kept = {
        (leaf.backend, leaf.place): leaf for leaf in (*(former.kept if former else ()), *preserve_leaves(plan.source))
    }
    old = plan.source.checkpoint
    return Manifest(
        equiv=version("equiv"),
        case=case,
        source=CheckpointInfo(old.file.name, old.format, plan.source.backend),
        target=target,
        leaves=leaves,
        notes=plan.notes,
        kept=tuple(kept.values()),
    )
