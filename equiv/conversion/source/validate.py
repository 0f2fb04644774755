"""Check a checkpoint against a template: no leaf missing or extra, each of the expected shape and dtype."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from equiv.conversion.formats.checkpoint import Checkpoint, TemplateMismatch
from equiv.conversion.formats.tree_paths import TreePath, path_text, path_words
from equiv.conversion.source.expected_leaves import OPTIMIZER, CheckpointTemplate, Slot
from equiv.core.leaves import LeafSpec

MAX_NAMED_LEAVES = 3
"""Maximal number of leaves named in one message."""


def slot_names(slot: Slot) -> str:
    """Canonical names of the leaves that a slot holds, as text."""
    return " and ".join(leaf.name for leaf in slot.held[:MAX_NAMED_LEAVES])


def check_complete(
    checkpoint: Checkpoint, template: CheckpointTemplate, places: Mapping[TreePath, TreePath], paths: Sequence[TreePath]
) -> None:
    """Raise where a slot has no leaf, or a leaf no slot; random state may be missing.

    Raises:
        TemplateMismatch: naming the first of each.
    """
    used = set(places.values())
    extra = [path for path in paths if path not in used]
    missing = [slot for slot in template.slots if slot.path not in places and slot.role != "random"]
    if not missing and not extra:
        return
    if not used:
        raise TemplateMismatch(
            f"{checkpoint.file}: none of its {_leaf_count(len(paths))}, first {_first_path(paths)}, is one of the "
            f"{len(template.slots)} of {template.port}, first {path_text(template.slots[0].path)!r}.",
            0,
            fix="Give the case of this checkpoint.",
        )
    problems = []
    if missing:
        slot = missing[0]
        problems.append(
            f"{len(missing)} of the {_leaf_count(len(template.slots))} of {template.port} missing, first "
            f"{path_text(slot.path)!r} {slot.spec} ({slot_names(slot)})"
        )
    if extra:
        expected = {path_text(slot.path): None for slot in missing}
        close = difflib.get_close_matches(path_text(extra[0]), expected, n=1, cutoff=0.6)
        hint = f", close to {close[0]!r}" if close else ""
        problems.append(
            f"{_leaf_count(len(extra))} too many for {template.port}, first {_first_path(extra)} "
            f"{checkpoint.leaves[extra[0]]}{hint}"
        )
    fix = "Use a complete checkpoint: missing leaves are not filled in."
    if extra:
        fix = "Fix the case, or pass --drop with what is to be left out."
    if extra and OPTIMIZER in path_words(extra[0]) and not any(slot.role == "optimizer" for slot in template.slots):
        fix = f"Give the case the optimizer that it was trained with, or pass --drop {OPTIMIZER}."
    raise TemplateMismatch(f"{checkpoint.file}: {'; '.join(problems)}.", len(used), fix=fix)


def _leaf_count(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def _first_path(paths: Sequence[TreePath]) -> str:
    return repr(path_text(paths[0])) if paths else "none"


def check_spec(checkpoint: Checkpoint, slot: Slot, path: TreePath, template: CheckpointTemplate) -> None:
    """Raise where a leaf has another shape or dtype; a count may have any integer dtype, since its value is converted.

    Raises:
        TemplateMismatch: naming the leaf.
    """
    there, wanted = checkpoint.leaves[path], key_data(slot.spec)
    if there.shape == wanted.shape and (there.dtype == wanted.dtype or (is_count(slot) and is_number(there))):
        return
    fix = "Save it as that dtype." if there.shape == wanted.shape else "Give the case the sizes of the checkpoint."
    raise TemplateMismatch(
        f"{checkpoint.file}: leaf {path_text(path)!r} is {there}, {template.port} has {wanted} ({slot_names(slot)}).",
        len(template.slots),
        fix=fix,
        leaf=path_text(path),
    )


def key_data(spec: LeafSpec) -> LeafSpec:
    """A leaf as stored: a key of `jax.random` becomes its key data (threefry: two integers)."""
    if not spec.dtype.startswith("key<"):
        return spec
    return LeafSpec((*spec.shape, 4 if "rbg" in spec.dtype else 2), "uint32", spec.collection)


def is_count(slot: Slot) -> bool:
    """Whether a slot is an integer outside of the model: a step, the count of an optimizer."""
    return slot.role in ("bookkeeping", "optimizer") and slot.native is None and is_number(slot.spec)


def is_number(spec: LeafSpec) -> bool:
    """Whether a leaf is one integer."""
    return spec.dtype.startswith(("int", "uint")) and spec.dtype not in ("int4", "uint4") and np.prod(spec.shape) == 1
