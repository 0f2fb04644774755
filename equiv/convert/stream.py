"""A plan carried out: leaf by leaf into a temporary place, which takes the target's name only when all is well."""

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
from equiv.convert.checkpoint import CheckpointError, Leaf, size_of, spec_of
from equiv.convert.locate import key_data
from equiv.convert.manifest import LeafRecord, Manifest, Side
from equiv.convert.plan import Plan
from equiv.convert.random_state import typed
from equiv.convert.readers import open_checkpoint
from equiv.convert.rows import Row
from equiv.convert.tree import TreePath, shown, words
from equiv.convert.writers import Outgoing, write

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
        out: where; it must not exist.
        format: of it.
        case: name of the case, for the manifest.
        progress: see `Progress`.
        verify: see `Verify`.

    Raises:
        CheckpointError: a leaf cannot be read, made or written; or `out` exists.
    """
    check_free(plan, out)
    former = manifests.read(plan.source.checkpoint.file)
    place = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        new = place / out.name
        records = _write(plan, new, format, progress, out)
        target = Side(out.name, format, plan.target.port.backend)
        manifest = manifests.manifest_of(plan, case, target, records, former)
        if verify is not None:
            manifest = replace(manifest, verified=verify(new, manifest.leaves))
        beside = place / "manifest.json"
        beside.write_bytes(manifests.encode(manifest))
        _publish(new, out, beside)
        return manifest
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror}. Give another place with -o.") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write(plan: Plan, new: Path, format: str, progress: Progress, out: Path) -> tuple[LeafRecord, ...]:
    with ThreadPoolExecutor(1) as pool:
        recorder = _Recorder(pool, progress)
        leaves = [recorder.leaf(row) for row in plan.rows]
        try:
            write(new, format, Outgoing(leaves, plan.template.empties, partial(_tree, plan)))
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(new), str(out))) from error
        _check_written(plan, new, out)
        return recorder.records()


def check_free(plan: Plan, out: Path) -> None:
    """Raise where the new checkpoint has no room, or would lie where something is.

    Raises:
        CheckpointError: saying so.
    """
    if not out.parent.is_dir():
        raise CheckpointError(f"{out}: there is no folder {out.parent}. Make it first.")
    for file in (out, manifests.path_of(out)):
        if os.path.lexists(file):
            raise CheckpointError(f"{file}: it exists, and nothing is overwritten. Give another place with -o.")
    wanted = sum(size_of(key_data(row.slot.spec)) for row in plan.rows)
    free = shutil.disk_usage(out.parent).free
    if free < wanted:
        raise CheckpointError(f"{out}: it takes {wanted} bytes, and {free} are free. Give another place with -o.")


class _Recorder:
    """Makes leaves and hashes each while it is written and the next is read: two leaves are held at most."""

    def __init__(self, pool: ThreadPoolExecutor, progress: Progress) -> None:
        self.pool, self.progress = pool, progress
        self.hashes: list[tuple[Row, Future[str]]] = []

    def leaf(self, row: Row) -> Leaf:
        """A row as a writer takes it."""
        return Leaf(row.slot.path, key_data(row.slot.spec), partial(self._make, row))

    def _make(self, row: Row) -> np.ndarray:
        array, spec = row.make(), key_data(row.slot.spec)
        if (got := spec_of(array)) != replace(spec, collection=got.collection):
            raise CheckpointError(f"leaf {shown(row.slot.path)!r} was made as {got}, wanted {spec}. Please report it.")
        if self.hashes:
            self.hashes[-1][1].result()
        self.hashes.append((row, self.pool.submit(manifests.sha256_of, array)))
        self.progress(array.nbytes)
        return array

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
    """Give the files their names, the checkpoint last; a link, unlike a renaming, never replaces anything."""
    _flush(new)
    beside = manifests.path_of(out)
    os.link(manifest, beside)
    try:
        if new.is_dir():
            new.rename(out)
        else:
            os.link(new, out)
    except BaseException:
        beside.unlink()
        raise


def _flush(new: Path) -> None:
    """To the disk itself, before the name says that it is there."""
    for file in (new, *new.rglob("*")):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
