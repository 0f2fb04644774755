"""orbax, through its own library: a folder, of which single leaves can be read."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, Leaf, guarded, size_of
from equiv.convert.formats.tree_paths import Empty, TreePath, flatten, mapped, shown
from equiv.core.leaves import LeafSpec

MARK = "_METADATA"
"""The file in a folder that holds one tree (orbax-checkpoint 0.12.8)."""


HEADERS = (b".zarray", b"zarr.json")
"""What describes an array, of either version of zarr."""


ALONE = 2**17
"""Elements from which on an array is read by itself; smaller ones together, for a call takes milliseconds."""


TOGETHER = 2**24
"""Bytes of small arrays that are read together."""


def folder_of(folder: Path) -> Path:
    """The folder that holds the tree: the given one, or the one item of a step of orbax's CheckpointManager.

    Raises:
        CheckpointError: there is none or more than one, or a link leads out of the folder.
    """
    for entry in folder.rglob("*"):
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder}: {entry.name} is a link that leads out of it. Copy the files themselves.")
    if (folder / MARK).is_file():
        return folder
    inside = sorted(mark.parent for mark in (*folder.glob(f"*/{MARK}"), *folder.glob(f"*/*/{MARK}")))
    if len(inside) == 1:
        return inside[0]
    found = ", ".join(str(item.relative_to(folder)) for item in inside[:5]) or f"no {MARK}"
    raise CheckpointError(f"{folder}: not one checkpoint of orbax in it, but {found}. Give the folder of one item.")


def read(folder: Path) -> Checkpoint:
    """Open an orbax checkpoint, without a target: as it lies there, with integer keys as text.

    Raises:
        CheckpointError: no orbax checkpoint, or parts of it are missing.
    """
    import orbax.checkpoint as ocp

    place = folder_of(folder)
    handler = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    with guarded(folder, "reading as orbax"):
        _check_small(place)
        metadata = handler.metadata(place.absolute()).item_metadata
        if metadata is None:  # orbax says why in its log, and goes on
            raise CheckpointError(
                "orbax cannot tell what is in it: its description is not whole. Copy the folder again."
            )
        tree = getattr(metadata, "tree", metadata)
        found = flatten(tree)
        leaves = {path: _spec(path, leaf) for path, leaf in found.items() if not isinstance(leaf, Empty)}
    reader = _Reader(folder, leaves, partial(_restore, handler, place, tree))
    return Checkpoint(folder, "orbax", leaves, reader.read, handler.close)


def _check_small(place: Path) -> None:
    """Read the header of every array, and the small ones whole, one after the other.

    orbax reads many at once: where one cannot be read, the others go on behind its back and complain later.
    """
    import tensorstore

    files = {"driver": "file", "path": f"{place.absolute()}/"}
    # Without this file it is an older form, a folder for each array.
    joined = (place / "manifest.ocdbt").is_file()
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": files} if joined else files).result()
    small: set[bytes] = set()
    keys = sorted(store.list().result(), key=lambda key: not key.endswith(HEADERS))
    for key in keys:
        array, _, part = key.rpartition(b"/")
        if part in HEADERS:
            shape = _shape(array.decode(), json.loads(store.read(key).result().value))
            small |= {array} if math.prod(shape) < ALONE else set()
        elif array in small:
            store.read(key).result()


def _shape(array: str, header: dict[str, Any]) -> list[int]:
    """The shape of an array, of which no chunk is larger: memory is taken for a whole chunk before it is read."""
    shape = header["shape"]
    chunk = header["chunks"] if "chunks" in header else header["chunk_grid"]["configuration"]["chunk_shape"]
    if any(part > max(1, size) for part, size in zip(chunk, shape, strict=True)):
        raise CheckpointError(f"array {array!r} of shape {shape} is in chunks of {chunk}. Copy the folder again.")
    return shape


def _spec(path: TreePath, leaf: Any) -> LeafSpec:
    if getattr(leaf, "dtype", None) is None:
        raise CheckpointError(f"leaf {shown(path)!r} is {type(leaf).__name__}, which is no array. Leave it out.")
    return LeafSpec(tuple(getattr(leaf, "shape", ())), str(np.dtype(leaf.dtype)))


def _restore(handler: Any, place: Path, tree: Any, paths: Sequence[TreePath]) -> dict[TreePath, np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    wanted = set(paths)

    def one(path: TreePath, leaf: Any) -> Any:
        return leaf if path in wanted else ocp.PLACEHOLDER

    item = mapped(one, tree)
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    restored = handler.restore(place.absolute(), args=ocp.args.PyTreeRestore(item=item, restore_args=arguments))
    return {path: np.asarray(leaf) for path, leaf in flatten(restored).items() if path in wanted}


class _Reader:
    """Reads neighbouring leaves together and keeps only the last lot."""

    def __init__(self, folder: Path, leaves: Mapping[TreePath, LeafSpec], restore: Callable[..., Any]) -> None:
        self.folder, self.restore = folder, restore
        self.lots = list(_lots(leaves))
        self.lot_of = {path: index for index, lot in enumerate(self.lots) for path in lot}
        self.kept: tuple[int, dict[TreePath, np.ndarray]] = (-1, {})

    def read(self, path: TreePath) -> np.ndarray:
        """One leaf."""
        index = self.lot_of[path]
        if self.kept[0] != index:
            self.kept = (-1, {})  # before the next is read: two lots are never held at once
            with guarded(self.folder, f"reading leaf {shown(path)!r}"):
                self.kept = (index, self.restore(self.lots[index]))
        return self.kept[1][path]


def _lots(leaves: Mapping[TreePath, LeafSpec]) -> Sequence[list[TreePath]]:
    lots: list[list[TreePath]] = []
    room = 0
    for path, spec in leaves.items():
        if (size := size_of(spec)) > room or math.prod(spec.shape) >= ALONE:
            lots.append([])
            room = TOGETHER
        lots[-1].append(path)
        room = room - size if math.prod(spec.shape) < ALONE else 0
    return lots


def write(folder: Path, leaves: Sequence[Leaf], tree: Callable[[Mapping[TreePath, Any]], Any]) -> None:
    """Write what `orbax.checkpoint.StandardCheckpointer` would of the library's own tree.

    orbax wants the tree whole: the leaves are written to a file beside it first, and handed over as views of that.
    Without compression: weights hardly shrink, and it takes four times as long.
    """
    import jax
    import orbax.checkpoint as ocp

    from equiv.convert.formats.scratch_file import spooled

    # Keys of jax.random are handed over as such, so that they come back as such; all else without a copy.
    handlers = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.get_type_handler(jax.Array)),
    )
    with guarded(folder, "writing orbax"), spooled(folder.with_name(f"{folder.name}.leaves"), leaves) as arrays:
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers, use_compression=False)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder.absolute(), args=ocp.args.PyTreeSave(tree(arrays)))
