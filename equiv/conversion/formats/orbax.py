"""orbax, through its own library: a folder from which single leaves can be read."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from equiv.conversion.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    naming_checkpoint,
    size_of,
)
from equiv.conversion.formats.tree_paths import Empty, TreePath, flatten, map_leaves, path_text
from equiv.core.leaves import LeafSpec

METADATA_FILE = "_METADATA"
"""The file in a folder that holds one tree (orbax-checkpoint 0.12.8)."""

ZARR_HEADERS = (b".zarray", b"zarr.json")
"""File names of array metadata, of zarr versions 2 and 3."""

SINGLE_READ_ELEMENTS = 2**17
"""Elements from which an array is read by itself; smaller ones are read in groups, since a call takes milliseconds."""

GROUP_BYTES = 2**24
"""Bytes of small arrays that are read together."""


def folder_of(folder: Path) -> Path:
    """The folder that holds the tree: the given one, or the only item of a step of orbax's CheckpointManager.

    Raises:
        CheckpointError: there is none or more than one, or a link points outside of the folder.
    """
    for entry in folder.rglob("*"):
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"{folder}: {entry.name} is a link to a file outside of it.", fix="Copy the files themselves."
            )
    if (folder / METADATA_FILE).is_file():
        return folder
    inside = sorted(mark.parent for mark in (*folder.glob(f"*/{METADATA_FILE}"), *folder.glob(f"*/*/{METADATA_FILE}")))
    if len(inside) == 1:
        return inside[0]
    found = ", ".join(str(item.relative_to(folder)) for item in inside[:5]) or f"no {METADATA_FILE}"
    raise CheckpointError(
        f"{folder}: expected one checkpoint of orbax in it, found {found}.", fix="Give the folder of one item."
    )


def read(folder: Path) -> Checkpoint:
    """Open an orbax checkpoint without a target: the tree as stored, with integer keys as text.

    Raises:
        CheckpointError: not an orbax checkpoint, or parts of it are missing.
    """
    import orbax.checkpoint as ocp

    place = folder_of(folder)
    handler = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    with naming_checkpoint(folder, "reading as orbax"):
        _check_small(place)
        metadata = handler.metadata(place.absolute()).item_metadata
        if metadata is None:  # orbax only logs the reason
            raise CheckpointError("orbax cannot read its metadata, which is incomplete.", fix="Copy the folder again.")
        tree = getattr(metadata, "tree", metadata)
        found = flatten(tree)
        leaves = {path: _metadata_spec(path, leaf) for path, leaf in found.items() if not isinstance(leaf, Empty)}
    reader = _GroupReader(folder, leaves, partial(_restore, handler, place, tree))
    return Checkpoint(folder, "orbax", leaves, reader.read, handler.close)


def _check_small(place: Path) -> None:
    """Read the metadata of every array, and all data of the small ones, one after the other.

    orbax reads many concurrently: where one cannot be read, the others go on in the background and raise later.
    """
    import tensorstore

    files = {"driver": "file", "path": f"{place.absolute()}/"}
    # Without this file it is the older form, a folder for each array.
    joined = (place / "manifest.ocdbt").is_file()
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": files} if joined else files).result()
    small: set[bytes] = set()
    keys = sorted(store.list().result(), key=lambda key: not key.endswith(ZARR_HEADERS))
    for key in keys:
        array, _, part = key.rpartition(b"/")
        if part in ZARR_HEADERS:
            shape = _zarr_shape(array.decode(), json.loads(store.read(key).result().value))
            small |= {array} if math.prod(shape) < SINGLE_READ_ELEMENTS else set()
        elif array in small:
            store.read(key).result()


def _zarr_shape(array: str, header: dict[str, Any]) -> list[int]:
    """The shape of an array, checked to have no larger chunk: a whole chunk is allocated before it is read."""
    shape = header["shape"]
    chunk = header["chunks"] if "chunks" in header else header["chunk_grid"]["configuration"]["chunk_shape"]
    if any(part > max(1, size) for part, size in zip(chunk, shape, strict=True)):
        raise CheckpointError(
            f"array {array!r} of shape {shape} is in chunks of {chunk}.", fix="Copy the folder again."
        )
    return shape


def _metadata_spec(path: TreePath, leaf: Any) -> LeafSpec:
    if getattr(leaf, "dtype", None) is None:
        raise CheckpointError(
            f"leaf {path_text(path)!r} is {type(leaf).__name__}, which is no array.",
            fix="Leave it out.",
            leaf=path_text(path),
        )
    return LeafSpec(tuple(getattr(leaf, "shape", ())), str(np.dtype(leaf.dtype)))


def _restore(handler: Any, place: Path, tree: Any, paths: Sequence[TreePath]) -> dict[TreePath, np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    wanted = set(paths)

    def one(path: TreePath, leaf: Any) -> Any:
        return leaf if path in wanted else ocp.PLACEHOLDER

    item = map_leaves(one, tree)
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    restored = handler.restore(place.absolute(), args=ocp.args.PyTreeRestore(item=item, restore_args=arguments))
    return {path: np.asarray(leaf) for path, leaf in flatten(restored).items() if path in wanted}


class _GroupReader:
    """Reads neighbouring leaves in groups and caches only the last group."""

    def __init__(self, folder: Path, leaves: Mapping[TreePath, LeafSpec], restore: Callable[..., Any]) -> None:
        self.folder, self.restore = folder, restore
        self.groups = list(_read_groups(leaves))
        self.group_of = {path: index for index, group in enumerate(self.groups) for path in group}
        self.cached: tuple[int, dict[TreePath, np.ndarray]] = (-1, {})

    def read(self, path: TreePath) -> np.ndarray:
        """One leaf."""
        index = self.group_of[path]
        if self.cached[0] != index:
            self.cached = (-1, {})  # freed before the next is read: two groups are never in memory at once
            with naming_checkpoint(self.folder, f"reading leaf {path_text(path)!r}"):
                self.cached = (index, self.restore(self.groups[index]))
        return self.cached[1][path]


def _read_groups(leaves: Mapping[TreePath, LeafSpec]) -> Sequence[list[TreePath]]:
    groups: list[list[TreePath]] = []
    room = 0
    for path, spec in leaves.items():
        if (size := size_of(spec)) > room or math.prod(spec.shape) >= SINGLE_READ_ELEMENTS:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(path)
        room = room - size if math.prod(spec.shape) < SINGLE_READ_ELEMENTS else 0
    return groups


def write(folder: Path, outgoing: OutgoingCheckpoint) -> None:
    """Write the library's own tree as `orbax.checkpoint.StandardCheckpointer` would.

    orbax takes only a whole tree: the leaves are first written to a scratch file, and passed as memory maps of it.
    Without compression: weights hardly shrink, and it takes four times as long.
    """
    import jax
    import orbax.checkpoint as ocp

    from equiv.conversion.formats.scratch_file import scratch_views

    # Typed keys of jax.random are saved as such, so that they are restored as such; all else without a copy.
    handlers = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.get_type_handler(jax.Array)),
    )
    with (
        naming_checkpoint(folder, "writing orbax"),
        scratch_views(folder.with_name(f"{folder.name}.leaves"), outgoing.leaves) as arrays,
    ):
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers, use_compression=False)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder.absolute(), args=ocp.args.PyTreeSave(outgoing.tree(arrays)))


ORBAX = Format("orbax", ("", ".orbax"), read, write, is_folder=True, needs_whole_tree=True)
