"""Whether a checkpoint is what a library keeps of a model: nothing missing, too many, or of another kind."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from equiv.convert.formats.checkpoint import Checkpoint, Unfit
from equiv.convert.formats.tree_paths import TreePath, shown, words
from equiv.convert.source.expected_leaves import OPTIMIZER, Slot, Template
from equiv.core.leaves import LeafSpec

SHOWN = 3
"""Leaves named in one message."""


def called(slot: Slot) -> str:
    """What a slot holds, by canonical name."""
    return " and ".join(leaf.name for leaf in slot.held[:SHOWN])


def check_complete(
    checkpoint: Checkpoint, template: Template, places: Mapping[TreePath, TreePath], paths: Sequence[TreePath]
) -> None:
    """Raise where a slot has no leaf, or a leaf no slot; random state may be missing.

    Raises:
        Unfit: naming the first of each.
    """
    used = set(places.values())
    extra = [path for path in paths if path not in used]
    missing = [slot for slot in template.slots if slot.path not in places and slot.role != "random"]
    if not missing and not extra:
        return
    if not used:
        raise Unfit(
            f"{checkpoint.file}: none of its {_leaves(len(paths))}, first {_first(paths)}, is one of the "
            f"{len(template.slots)} of {template.backend}, first {shown(template.slots[0].path)!r}. "
            "Give the case that the checkpoint is of.",
            0,
        )
    said = []
    if missing:
        slot = missing[0]
        said.append(
            f"{len(missing)} of the {_leaves(len(template.slots))} of {template.backend} missing, first "
            f"{shown(slot.path)!r} {slot.spec} ({called(slot)})"
        )
    if extra:
        expected = {shown(slot.path): None for slot in missing}
        close = difflib.get_close_matches(shown(extra[0]), expected, n=1, cutoff=0.6)
        hint = f", close to {close[0]!r}" if close else ""
        said.append(
            f"{_leaves(len(extra))} too many for {template.backend}, first {_first(extra)} "
            f"{checkpoint.leaves[extra[0]]}{hint}"
        )
    mend = "Nothing is filled in for it."
    if extra:
        mend = "Mend the case, or say --drop with what is to be left out."
    if extra and OPTIMIZER in words(extra[0]) and not any(slot.role == "optimizer" for slot in template.slots):
        mend = f"Give the case the optimizer that it was trained with, or say --drop {OPTIMIZER}."
    raise Unfit(f"{checkpoint.file}: {'; '.join(said)}. {mend}", len(used))


def _leaves(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def _first(paths: Sequence[TreePath]) -> str:
    return repr(shown(paths[0])) if paths else "none"


def check_kind(checkpoint: Checkpoint, slot: Slot, path: TreePath, template: Template) -> None:
    """Raise where a leaf has another shape or dtype; a count may be any integer, since its value is looked at later.

    Raises:
        Unfit: naming the leaf.
    """
    there, wanted = checkpoint.leaves[path], key_data(slot.spec)
    if there.shape == wanted.shape and (there.dtype == wanted.dtype or (is_count(slot) and is_number(there))):
        return
    mend = "Save it as that dtype" if there.shape == wanted.shape else "Give the case the sizes of the checkpoint"
    raise Unfit(
        f"{checkpoint.file}: leaf {shown(path)!r} is {there}, {template.backend} has {wanted} ({called(slot)}). "
        f"{mend}.",
        len(template.slots),
    )


def key_data(spec: LeafSpec) -> LeafSpec:
    """A leaf as it is stored: a key of `jax.random` as the integers that it is made of (threefry: two)."""
    if not spec.dtype.startswith("key<"):
        return spec
    return LeafSpec((*spec.shape, 4 if "rbg" in spec.dtype else 2), "uint32", spec.collection)


def is_count(slot: Slot) -> bool:
    """Whether a slot is a whole number beside the model: a step, the count of an optimizer."""
    return slot.role in ("bookkeeping", "optimizer") and slot.native is None and is_number(slot.spec)


def is_number(spec: LeafSpec) -> bool:
    """Whether a leaf is one whole number."""
    return spec.dtype.startswith(("int", "uint")) and spec.dtype not in ("int4", "uint4") and np.prod(spec.shape) == 1
