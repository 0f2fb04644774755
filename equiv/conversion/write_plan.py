"""Carry out a plan: write leaf by leaf to a temporary folder, and rename to the target only after all checks pass."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from equiv.conversion import manifest as manifests
from equiv.conversion.formats.checkpoint import (
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    OutgoingLeaf,
    size_of,
    spec_of,
)
from equiv.conversion.formats.registry import open_checkpoint, write_checkpoint
from equiv.conversion.formats.shards import SHARD
from equiv.conversion.formats.tree_paths import TreePath, path_text, path_words
from equiv.conversion.manifest import CheckpointInfo, LeafRecord, Manifest
from equiv.conversion.plan.leaf_sources import PlannedLeaf
from equiv.conversion.plan.plan import Plan
from equiv.conversion.plan.random_state import with_key_dtype
from equiv.conversion.source.validate import key_data

HASHED_AT_ONCE = 2
"""Leaves that are hashed while the next one is read."""

FLUSHED_AT_ONCE = 2**26
"""Bytes after which written data is flushed to the disk, so that the final flush is short."""

WriteProgress = Callable[[int], None]
"""Called with the number of bytes written since the last call."""

Verify = Callable[[Path, tuple[LeafRecord, ...]], str]
"""`(new checkpoint, its leaves)` to the result in words; raises where the new checkpoint must not be kept."""


def execute_plan(
    plan: Plan,
    out: Path,
    format: Format,
    case: str,
    progress: WriteProgress = lambda _: None,
    verify: Verify | None = None,
) -> Manifest:
    """Write the new checkpoint and its manifest; on any error, no file is left behind.

    Args:
        plan: what to write.
        out: path of the new checkpoint; see `check_output_path`.
        format: its format.
        case: name of the case, for the manifest.
        progress: see `WriteProgress`.
        verify: see `Verify`.

    Raises:
        CheckpointError: a leaf cannot be read, computed or written; or there is too little disk space.
    """
    try:
        _check_room(plan, out, format)
        former = manifests.read_manifest(plan.source.checkpoint.file)
        with tempfile.TemporaryDirectory(prefix=".equiv.", dir=out.parent, ignore_cleanup_errors=True) as place:
            new = Path(place) / out.name
            records = _write(plan, new, format.name, progress, out)
            target = CheckpointInfo(out.name, format.name, plan.target.port.name)
            manifest = manifests.make_manifest(plan, case, target, records, former)
            if verify is not None:
                manifest = replace(manifest, verified=verify(new, manifest.leaves))
            new_manifest = manifests.manifest_path(new)
            new_manifest.write_bytes(manifests.encode_manifest(manifest))
            _publish(new, out, new_manifest)
            return manifest
    except OSError as error:
        raise CheckpointError(
            f"{out}: cannot be written: {error.strerror}.", fix="Give another path with -o."
        ) from error


def _write(plan: Plan, new: Path, format: str, progress: WriteProgress, out: Path) -> tuple[LeafRecord, ...]:
    with ThreadPoolExecutor(HASHED_AT_ONCE + 1) as pool:
        recorder = _LeafRecorder(pool, progress, new)
        leaves = [recorder.leaf(row) for row in plan.planned_leaves]
        try:
            write_checkpoint(
                new, format, OutgoingCheckpoint(leaves, plan.template.empties, partial(_native_tree, plan))
            )
        except CheckpointError as error:
            raise CheckpointError(error.problem.replace(str(new), str(out)), fix=error.fix, leaf=error.leaf) from error
        _check_written(plan, new, out)
        return recorder.records()


def check_output_path(out: Path, old: Path) -> None:
    """Raise where the path of a new checkpoint cannot be used.

    Raises:
        CheckpointError: the path exists, its folder does not, it is inside of the old checkpoint, or its name is that
            of one part of several.
    """
    if not out.parent.is_dir():
        raise CheckpointError(f"{out}: the folder {out.parent} does not exist.", fix="Create it first.")
    for file in (out, manifests.manifest_path(out)):
        if os.path.lexists(file):
            raise CheckpointError(
                f"{file}: the file exists, and nothing is overwritten.", fix="Give another path with -o."
            )
    if SHARD.fullmatch(out.name):
        raise CheckpointError(
            f"{out}: its name is that of one part of several, and it would be read as such.",
            fix="Give another path with -o.",
        )
    if out.resolve().is_relative_to(old.resolve()):
        raise CheckpointError(
            f"{out}: the path is inside of the old checkpoint, {old}.", fix="Give another path with -o."
        )


def _check_room(plan: Plan, out: Path, format: Format) -> None:
    copies = 2 if format.needs_whole_tree else 1
    wanted = copies * sum(size_of(key_data(row.slot.spec)) for row in plan.planned_leaves)
    free = shutil.disk_usage(out.parent).free
    if free < wanted:
        raise CheckpointError(f"{out}: it takes {wanted} bytes, and {free} are free.", fix="Give another path with -o.")


class _LeafRecorder:
    """Compute leaves; hash and flush each while the next is read, so that only a few are in memory at a time."""

    def __init__(self, pool: ThreadPoolExecutor, progress: WriteProgress, new: Path) -> None:
        self.pool, self.progress, self.new = pool, progress, new
        self.hashes: list[tuple[PlannedLeaf, Future[str]]] = []
        self.written, self.flushed = 0, pool.submit(lambda: None)

    def leaf(self, row: PlannedLeaf) -> OutgoingLeaf:
        """A planned leaf in the form that a format's writer takes."""
        return OutgoingLeaf(row.slot.path, key_data(row.slot.spec), partial(self._make, row))

    def _make(self, row: PlannedLeaf) -> np.ndarray:
        array, spec = row.make(), key_data(row.slot.spec)
        if (got := spec_of(array)) != replace(spec, collection=got.collection):
            raise CheckpointError(
                f"leaf {path_text(row.slot.path)!r} was computed as {got}, expected {spec}.",
                fix="Please report it.",
                leaf=path_text(row.slot.path),
            )
        if len(self.hashes) >= HASHED_AT_ONCE:
            self.hashes[-HASHED_AT_ONCE][1].result()
        self.hashes.append((row, self.pool.submit(manifests.sha256_of, array)))
        self._flush(array.nbytes)
        self.progress(array.nbytes)
        return array

    def _flush(self, size: int) -> None:
        self.written += size
        if self.written >= FLUSHED_AT_ONCE and self.flushed.done() and self.new.is_file():
            self.flushed.result()
            self.flushed, self.written = self.pool.submit(_fsync, self.new), 0

    def records(self) -> tuple[LeafRecord, ...]:
        """Records of every leaf that was written, in the order of the file."""
        return tuple(
            manifests.leaf_record(row, hashed.result(), key_data(row.slot.spec)) for row, hashed in self.hashes
        )


def _native_tree(plan: Plan, arrays: Mapping[TreePath, np.ndarray]) -> object:
    """The library's own tree, for orbax."""
    slots = {row.slot.path: row.slot for row in plan.planned_leaves}
    return plan.template.tree({path: with_key_dtype(slots[path], array) for path, array in arrays.items()})


def _check_written(plan: Plan, new: Path, out: Path) -> None:
    """Open the new checkpoint, and check that every leaf is there, in its shape and dtype."""
    planned = {path_words(row.slot.path): key_data(row.slot.spec) for row in plan.planned_leaves}
    checkpoint = open_checkpoint(new)
    try:
        found = {path_words(path): (spec.shape, spec.dtype) for path, spec in checkpoint.leaves.items()}
    finally:
        checkpoint.close()
    if found != {path: (spec.shape, spec.dtype) for path, spec in planned.items()}:
        raise CheckpointError(
            f"{out}: the written leaves differ from the plan; it is not kept.", fix="Please report it."
        )


def _publish(new: Path, out: Path, manifest: Path) -> None:
    """Rename the files to their final names, the checkpoint last."""
    for file in (new, *new.rglob("*"), manifest):
        _fsync(file)
    final_manifest = manifests.manifest_path(out)
    _rename_exclusive(manifest, final_manifest)
    try:
        _rename_exclusive(new, out)
    except BaseException:
        final_manifest.unlink()
        raise
    _fsync(out.parent)


def _rename_exclusive(file: Path, name: Path) -> None:
    """Rename without replacing: a hard link fails where a file has appeared in the meantime."""
    if file.is_dir():
        file.rename(name)
        return
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        file.rename(name)  # a file system without links


def _fsync(file: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if file.is_dir() and os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
