"""Folders of orbax that lack something, lie about their size, or lead out of themselves."""

import json
import os
import shutil
from pathlib import Path

import convert_helpers as h
import orbax.checkpoint as ocp
from conversion.good_checkpoint import NAME, OPTIMIZER


def orbax(change):
    """A folder of orbax, changed."""

    def make(folder: Path) -> Path:
        file = h.save(folder / "old", "haiku", h.trained(NAME, "haiku", OPTIMIZER))
        change(file)
        return file

    return make


def without_data(folder: Path) -> None:
    """The leaves themselves are gone."""
    for part in ("d", "ocdbt.process_0"):
        shutil.rmtree(folder / part)


def half_the_data(folder: Path) -> None:
    """The largest file of leaves is cut."""
    file = max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size * 2 // 3)


def in_folders(folder: Path, zarr3: bool = False) -> None:
    """The same in the older form, a folder for each array."""
    tree = h.saved_form(h.trained(NAME, "haiku", OPTIMIZER))
    shutil.rmtree(folder)
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=zarr3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))


def lost_chunk(folder: Path) -> None:
    """The file of an array's values is gone: tensorstore reads zeros."""
    in_folders(folder)
    (folder / "params.linear.w" / "0.0").unlink()


def lost_chunk_of_zarr3(folder: Path) -> None:
    """The same in the newer form of zarr."""
    in_folders(folder, zarr3=True)
    (folder / "params.linear.w" / "c" / "0" / "0").unlink()


def huge_chunks(folder: Path) -> None:
    """A header that says that a chunk is as large as memory."""
    in_folders(folder)
    (header,) = folder.glob("params.linear.w/.zarray")
    header.write_text(json.dumps({**json.loads(header.read_text()), "chunks": [2**20, 2**20]}))


def link_out(folder: Path) -> None:
    """A file of the checkpoint is one of the machine."""
    (folder / "d" / "passwd").symlink_to("/etc/passwd")


def two_items(folder: Path) -> None:
    """Two trees in one step."""
    for name in ("default", "other"):
        shutil.copytree(folder, folder.with_name("step") / name)
    shutil.rmtree(folder)
    folder.with_name("step").rename(folder)


BAD = {
    "orbax without its description": (
        orbax(lambda at: (at / "_METADATA").unlink()),
        r"old: expected one checkpoint of orbax",
    ),
    "orbax with half its description": (
        orbax(lambda at: (at / "_METADATA").write_text((at / "_METADATA").read_text()[:300])),
        r"old: orbax cannot read its metadata",
    ),
    "orbax without its leaves": (orbax(without_data), r"old: reading as orbax failed with ValueError: NOT_FOUND"),
    "orbax with half its data": (orbax(half_the_data), r"old: reading as orbax failed"),
    "orbax with chunks as large as memory": (
        orbax(huge_chunks),
        r"old: array 'params\.linear\.w' of shape \[3, 7\] is in chunks of \[1048576, 1048576\]",
    ),
    "orbax without a chunk": (
        orbax(lost_chunk),
        r"old: array 'params\.linear\.w' of shape \[3, 7\] lacks 1 of its 1 chunks of \[3, 7\], which",
    ),
    "orbax without a chunk of zarr 3": (
        orbax(lost_chunk_of_zarr3),
        r"old: array 'params\.linear\.w' of shape \[3, 7\] lacks 1 of its 1 chunks",
    ),
    "orbax with a link out of it": (orbax(link_out), r"old: passwd is a link to a file outside of it"),
    "orbax with two items": (orbax(two_items), r"old: expected one checkpoint of orbax in it, found default, other"),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
