"""orbax, through its own library: a folder from which single leaves can be read."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from equiv.conversion.formats.checkpoint import (
    TEXT,
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

EVERY_CHUNK = "store_array_data_equal_to_fill_value"
"""Whether chunks of zeros are written (orbax-checkpoint 0.12.8, `metadata/tree.py`); older checkpoints do not say."""

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
        _check_arrays(place)
        metadata = handler.metadata(place.absolute()).item_metadata
        if metadata is None:  # orbax only logs the reason
            raise CheckpointError("orbax cannot read its metadata, which is incomplete.", fix="Copy the folder again.")
        tree = getattr(metadata, "tree", metadata)
        found = flatten(tree)
        leaves = {path: _metadata_spec(path, leaf) for path, leaf in found.items() if not isinstance(leaf, Empty)}
    reader = _GroupReader(folder, leaves, partial(_restore, handler, place, tree))
    return Checkpoint(folder, "orbax", leaves, reader.read, handler.close)


def _check_arrays(place: Path) -> None:
    """Read the metadata of every array and all data of the small ones, one after the other, and count all chunks.

    orbax reads many concurrently: where one cannot be read, the others go on in the background and raise later. A chunk
    that is not there is read as zeros (tensorstore 0.1.84, `driver/zarr`).

    Raises:
        CheckpointError: a chunk is missing, or larger than its array.
    """
    import tensorstore

    files = {"driver": "file", "path": f"{place.absolute()}/"}
    # Without this file it is the older form, a folder for each array.
    joined = (place / "manifest.ocdbt").is_file()
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": files} if joined else files).result()
    arrays: dict[bytes, _ZarrArray] = {}
    small: list[bytes] = []
    for key in sorted(store.list().result(), key=lambda key: not key.endswith(ZARR_HEADERS)):
        array, _, part = key.rpartition(b"/")
        if part in ZARR_HEADERS:
            arrays[array] = _ZarrArray(array.decode(), json.loads(store.read(key).result().value))
        elif (owner := _array_of(key, arrays)) is not None:
            arrays[owner].present += 1
            small += [key] if math.prod(arrays[owner].shape) < SINGLE_READ_ELEMENTS else []
    for key in small:
        store.read(key).result()
    if _stores_every_chunk(place):
        for array in arrays.values():
            array.check_whole()


def _array_of(key: bytes, arrays: Mapping[bytes, Any]) -> bytes | None:
    """The array that a chunk is of: `kernel/0.1` and `kernel/c/0/1` are chunks of `kernel`."""
    while key:
        key = key.rpartition(b"/")[0]
        if key in arrays:
            return key
    return None


def _stores_every_chunk(place: Path) -> bool:
    """Whether chunks of nothing but zeros were written too, as orbax does and says since 0.6."""
    try:
        return bool(json.loads((place / METADATA_FILE).read_bytes()).get(EVERY_CHUNK))
    except (ValueError, AttributeError):  # orbax says what is wrong with it
        return False


class _ZarrArray:
    """The header of an array, and how many of its chunks there are."""

    def __init__(self, name: str, header: dict[str, Any]) -> None:
        self.name, self.present = name, 0
        self.shape: list[int] = header["shape"]
        self.chunk: list[int] = (
            header["chunks"] if "chunks" in header else header["chunk_grid"]["configuration"]["chunk_shape"]
        )
        # A whole chunk is allocated before it is read.
        if any(part > max(1, size) for part, size in zip(self.chunk, self.shape, strict=True)):
            raise CheckpointError(
                f"array {name!r} of shape {self.shape} is in chunks of {self.chunk}.", fix="Copy the folder again."
            )

    def check_whole(self) -> None:
        """Raise where a chunk is missing.

        Raises:
            CheckpointError: naming the array.
        """
        whole = math.prod(-(-size // part) for size, part in zip(self.shape, self.chunk, strict=True) if part)
        if self.present < whole:
            raise CheckpointError(
                f"array {self.name!r} of shape {self.shape} lacks {whole - self.present} of its {whole} chunks of "
                f"{self.chunk}, which orbax would read as zeros.",
                fix="Copy the folder again.",
            )


def _metadata_spec(path: TreePath, leaf: Any) -> LeafSpec:
    if type(leaf).__name__ == "StringMetadata":  # in no public module of orbax 0.12.8
        return TEXT
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
        if spec == TEXT:
            continue
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
