"""A plan carried out: leaf by leaf into a temporary place, which takes the target's name only when all is well."""

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

from equiv.convert import manifest as manifests
from equiv.convert.formats.checkpoint import CheckpointError, Leaf, size_of, spec_of
from equiv.convert.formats.registry import Outgoing, open_checkpoint, write
from equiv.convert.formats.tree_paths import TreePath, shown, words
from equiv.convert.manifest import LeafRecord, Manifest, Side
from equiv.convert.plan.leaf_sources import Row
from equiv.convert.plan.plan import Plan
from equiv.convert.plan.random_state import typed
from equiv.convert.source.validate import key_data

HASHED_AT_ONCE = 2
"""Leaves, beside the one that is read."""


FLUSHED_AT_ONCE = 2**26
"""Bytes after which what has been written is sent on to the disk, so that there is less to wait for at the end."""


Progress = Callable[[int], None]
"""Told how many bytes have been written since it was last told."""


Verify = Callable[[Path, tuple[LeafRecord, ...]], str]
"""`(new checkpoint, its leaves)` to what was found; raises where the new checkpoint must not be kept."""


def carry_out(
    plan: Plan,
    out: Path,
    format: str,
    case: str,
    progress: Progress = lambda _: None,
    verify: Verify | None = None,
) -> Manifest:
    """Write the new checkpoint and its manifest; if anything goes wrong, nothing is there that was not before.

    Args:
        plan: what to write.
        out: where; see `check_place`.
        format: of it.
        case: name of the case, for the manifest.
        progress: see `Progress`.
        verify: see `Verify`.

    Raises:
        CheckpointError: a leaf cannot be read, made or written; or there is no room.
    """
    try:
        _check_room(plan, out, format)
        former = manifests.read(plan.source.checkpoint.file)
        with tempfile.TemporaryDirectory(prefix=".equiv.", dir=out.parent, ignore_cleanup_errors=True) as place:
            new = Path(place) / out.name
            records = _write(plan, new, format, progress, out)
            target = Side(out.name, format, plan.target.port.backend)
            manifest = manifests.manifest_of(plan, case, target, records, former)
            if verify is not None:
                manifest = replace(manifest, verified=verify(new, manifest.leaves))
            beside = manifests.path_of(new)
            beside.write_bytes(manifests.encode(manifest))
            _publish(new, out, beside)
            return manifest
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror}. Give another place with -o.") from error


def _write(plan: Plan, new: Path, format: str, progress: Progress, out: Path) -> tuple[LeafRecord, ...]:
    with ThreadPoolExecutor(HASHED_AT_ONCE + 1) as pool:
        recorder = _Recorder(pool, progress, new)
        leaves = [recorder.leaf(row) for row in plan.rows]
        try:
            write(new, format, Outgoing(leaves, plan.template.empties, partial(_tree, plan)))
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(new), str(out))) from error
        _check_written(plan, new, out)
        return recorder.records()


def check_place(out: Path, old: Path) -> None:
    """Raise where a new checkpoint would lie where something is, in no folder, or in the old one.

    Raises:
        CheckpointError: saying so.
    """
    if not out.parent.is_dir():
        raise CheckpointError(f"{out}: there is no folder {out.parent}. Make it first.")
    for file in (out, manifests.path_of(out)):
        if os.path.lexists(file):
            raise CheckpointError(f"{file}: it exists, and nothing is overwritten. Give another place with -o.")
    if out.resolve().is_relative_to(old.resolve()):
        raise CheckpointError(f"{out}: it lies in the old checkpoint, {old}. Give another place with -o.")


def _check_room(plan: Plan, out: Path, format: str) -> None:
    # orbax is given views of a file that is removed afterwards.
    copies = 2 if format == "orbax" else 1
    wanted = copies * sum(size_of(key_data(row.slot.spec)) for row in plan.rows)
    free = shutil.disk_usage(out.parent).free
    if free < wanted:
        raise CheckpointError(f"{out}: it takes {wanted} bytes, and {free} are free. Give another place with -o.")


class _Recorder:
    """Makes leaves, and hashes each and sends it to the disk while the next is read: a few leaves are held at most."""

    def __init__(self, pool: ThreadPoolExecutor, progress: Progress, new: Path) -> None:
        self.pool, self.progress, self.new = pool, progress, new
        self.hashes: list[tuple[Row, Future[str]]] = []
        self.written, self.flushed = 0, pool.submit(lambda: None)

    def leaf(self, row: Row) -> Leaf:
        """A row as a writer takes it."""
        return Leaf(row.slot.path, key_data(row.slot.spec), partial(self._make, row))

    def _make(self, row: Row) -> np.ndarray:
        array, spec = row.make(), key_data(row.slot.spec)
        if (got := spec_of(array)) != replace(spec, collection=got.collection):
            raise CheckpointError(f"leaf {shown(row.slot.path)!r} was made as {got}, wanted {spec}. Please report it.")
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
            self.flushed, self.written = self.pool.submit(_flush, self.new), 0

    def records(self) -> tuple[LeafRecord, ...]:
        """Every leaf that was made, in the order of the file."""
        return tuple(manifests.record(row, hashed.result(), key_data(row.slot.spec)) for row, hashed in self.hashes)


def _tree(plan: Plan, arrays: Mapping[TreePath, np.ndarray]) -> object:
    """The library's own tree, for orbax."""
    slots = {row.slot.path: row.slot for row in plan.rows}
    return plan.template.tree({path: typed(slots[path], array) for path, array in arrays.items()})


def _check_written(plan: Plan, new: Path, out: Path) -> None:
    """Open the new checkpoint as anybody would: every leaf is there, in its shape and dtype."""
    with_value = {words(row.slot.path): key_data(row.slot.spec) for row in plan.rows}
    checkpoint = open_checkpoint(new)
    try:
        found = {words(path): (spec.shape, spec.dtype) for path, spec in checkpoint.leaves.items()}
    finally:
        checkpoint.close()
    if found != {path: (spec.shape, spec.dtype) for path, spec in with_value.items()}:
        raise CheckpointError(f"{out}: it was not written as planned, and is not kept. Please report it.")


def _publish(new: Path, out: Path, manifest: Path) -> None:
    """Give the files their names, the checkpoint last."""
    for file in (new, *new.rglob("*"), manifest):
        _flush(file)
    beside = manifests.path_of(out)
    _name(manifest, beside)
    try:
        _name(new, out)
    except BaseException:
        beside.unlink()
        raise
    _flush(out.parent)


def _name(file: Path, name: Path) -> None:
    """Rename without replacing: a link fails where something is, which came while the checkpoint was written."""
    if file.is_dir():
        file.rename(name)
        return
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        file.rename(name)  # a file system without links


def _flush(file: Path) -> None:
    """A file to the disk itself, before its name says that it is there; or the names in a folder."""
    if file.is_dir() and os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
