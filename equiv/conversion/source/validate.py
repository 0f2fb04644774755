"""Check a checkpoint against a template: no leaf missing or extra, each of the expected shape and dtype."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from equiv.conversion.formats.checkpoint import TEXT, Checkpoint, TemplateMismatch
from equiv.conversion.formats.tree_paths import TreePath, path_text, path_words
from equiv.conversion.source.expected_leaves import OPTIMIZER, CheckpointTemplate, Slot
from equiv.conversion.source.stacked_layers import find_stack
from equiv.core.leaves import LeafSpec

MAX_NAMED_LEAVES = 3
"""Maximal number of leaves named in one message."""

PARAM_STATES = "param_states"
"""Where T5X has the optimizer's state, beside a step (google-research/t5x, `optimizers.py`: `OptimizerState`); in its
`OptaxWrapper` it is optax's own, otherwise that of an optimizer of T5X or of `flax.optim`."""

OPTIMIZER_WORDS = (OPTIMIZER, PARAM_STATES)
"""The words in a path below which an optimizer's state is."""


def slot_names(slot: Slot) -> str:
    """Canonical names of the leaves that a slot holds, as text."""
    return " and ".join(leaf.name for leaf in slot.held[:MAX_NAMED_LEAVES])


def optimizer_word(path: TreePath) -> str:
    """The word of a path below which the optimizer's state is; empty: the leaf is none of it."""
    return next((word for word in path if word in OPTIMIZER_WORDS), "")


def check_complete(
    checkpoint: Checkpoint, template: CheckpointTemplate, places: Mapping[TreePath, TreePath], paths: Sequence[TreePath]
) -> None:
    """Raise where a slot has no leaf, or a leaf no slot; random state may be missing.

    Raises:
        TemplateMismatch: naming the first ones of each, with their shapes.
    """
    used = set(places.values())
    extra = [path for path in paths if path not in used]
    missing = [slot for slot in template.slots if slot.path not in places and slot.role != "random"]
    if not missing and not extra:
        return
    stack = find_stack({path: checkpoint.leaves[path] for path in extra}, {one.path: one.spec for one in missing})
    if not used:
        raise TemplateMismatch(
            f"{checkpoint.file}: none of its {_leaf_count(len(paths))}, first {_first_path(paths)}, is one of the "
            f"{len(template.slots)} of {template.port}, first {path_text(template.slots[0].path)!r}"
            f"{f'; {stack.text}' if stack else ''}.",
            0,
            fix=stack.fix if stack else "Give the case of this checkpoint.",
        )
    problems = [
        *([_describe_missing(missing, template)] if missing else []),
        *([_describe_extra(checkpoint, extra, missing, template)] if extra else []),
        *([stack.text] if stack else []),
    ]
    fix = "Use a complete checkpoint: missing leaves are not filled in."
    if extra:
        fix = "Fix the case, or pass --drop with what is to be left out."
    if stack:
        fix = stack.fix
    elif extra and (word := optimizer_word(path_words(extra[0]))):
        fix = _fix_optimizer(word, template) or fix
    raise TemplateMismatch(f"{checkpoint.file}: {'; '.join(problems)}.", len(used), fix=fix)


def _describe_missing(missing: Sequence[Slot], template: CheckpointTemplate) -> str:
    slot = missing[0]
    return (
        f"{len(missing)} of the {_leaf_count(len(template.slots))} of {template.port} missing, first "
        f"{path_text(slot.path)!r} {slot.spec} ({slot_names(slot)})"
    )


def _describe_extra(
    checkpoint: Checkpoint, extra: Sequence[TreePath], missing: Sequence[Slot], template: CheckpointTemplate
) -> str:
    expected = {path_text(slot.path): slot.spec for slot in missing}
    close = difflib.get_close_matches(path_text(extra[0]), expected, n=1, cutoff=0.6)
    hint = f", close to {close[0]!r} {expected[close[0]]}" if close else ""
    return (
        f"{_leaf_count(len(extra))} too many for {template.port}, first {_first_path(extra)} "
        f"{checkpoint.leaves[extra[0]]}{hint}"
    )


def _fix_optimizer(word: str, template: CheckpointTemplate) -> str:
    """What to do with state of an optimizer that the case's train step does not have; empty: it has another."""
    if not any(slot.role == "optimizer" for slot in template.slots):
        return f"Give the case the optimizer that it was trained with, or pass --drop {word}."
    if word == PARAM_STATES:
        return f"If it is not optax's, as T5X's own Adafactor is not, it has no counterpart: pass --drop {word}."
    return ""


def _leaf_count(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def _first_path(paths: Sequence[TreePath]) -> str:
    return repr(path_text(paths[0])) if paths else "none"


def check_specs(checkpoint: Checkpoint, template: CheckpointTemplate, places: Mapping[TreePath, TreePath]) -> None:
    """Raise where leaves have another shape or dtype; a count may have any integer dtype: its value is converted.

    Raises:
        TemplateMismatch: naming the first leaf, and how many there are.
    """
    slots = [slot for slot in template.slots if slot.path in places]
    unlike = [slot for slot in slots if not _fits(slot, checkpoint.leaves[places[slot.path]])]
    if not unlike:
        return
    slot = unlike[0]
    path, there, wanted = places[slot.path], checkpoint.leaves[places[slot.path]], key_data(slot.spec)
    others = f"; {len(unlike)} of {len(slots)} leaves are unlike" if len(unlike) > 1 else ""
    if there == TEXT:
        raise TemplateMismatch(
            f"{checkpoint.file}: leaf {path_text(path)!r} is a text, which is no array; {template.port} has {wanted} "
            f"({slot_names(slot)}){others}.",
            len(template.slots) - len(unlike),
            fix="Save the array there.",
            leaf=path_text(path),
        )
    fix = "Save it as that dtype." if there.shape == wanted.shape else "Give the case the sizes of the checkpoint."
    if there.shape != wanted.shape and sorted(there.shape) == sorted(wanted.shape):
        fix = (
            "The sizes are the same on other axes: give the case a model that stores them so, such as layers stacked "
            'on axis 1 by nn.scan(..., variable_axes={"params": 1}), which MaxText calls param_scan_axis.'
        )
    raise TemplateMismatch(
        f"{checkpoint.file}: leaf {path_text(path)!r} is {there}, {template.port} has {wanted} "
        f"({slot_names(slot)}){others}.",
        len(template.slots) - len(unlike),
        fix=fix,
        leaf=path_text(path),
    )


def _fits(slot: Slot, there: LeafSpec) -> bool:
    wanted = key_data(slot.spec)
    same_dtype = there.dtype == wanted.dtype or (is_count(slot) and is_number(there))
    return there.shape == wanted.shape and same_dtype


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
