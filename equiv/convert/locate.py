"""Leaves of a checkpoint to the slots of a template: none missing, none left, none twice."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equiv.convert.checkpoint import Checkpoint, CheckpointError
from equiv.convert.template import OPTIMIZER, Model, Slot, Template
from equiv.convert.tree import TreePath, shown, words
from equiv.variables import LeafSpec

COLLECTIONS = ("params",)
"""Words between an optimizer's slot and a parameter where a whole variable tree was optimized."""

SHOWN = 3
"""Leaves named in one message."""


@dataclass(frozen=True)
class Located:
    """A checkpoint as a template of one library.

    Attributes:
        model: whose.
        template: `model.variables`, or `model.training` where the checkpoint has an optimizer.
        places: path of a slot to path in the checkpoint; slots of random state may be missing.
        dropped: paths in the checkpoint that are left out because the user said so.
        alike: how many leaves are called exactly as this package calls them.
    """

    model: Model
    template: Template
    places: Mapping[TreePath, TreePath]
    dropped: tuple[TreePath, ...]
    alike: int


def locate(checkpoint: Checkpoint, model: Model, drop: Sequence[str] = ()) -> Located:
    """Find every slot of a library's template in a checkpoint.

    A leaf is known by the end of its path: what stands before the parameters (`params/params`, `model`, a step) may
    be anything, but one and the same thing for all leaves of a collection.

    Args:
        checkpoint: opened.
        model: the library's side of the case.
        drop: beginnings of paths that are left out.

    Raises:
        CheckpointError: a leaf is missing, extra, there twice, or of another shape or dtype.
    """
    dropped = tuple(path for path in checkpoint.leaves if any(_begins(path, start) for start in drop))
    kept = [path for path in checkpoint.leaves if path not in set(dropped)]
    template = model.training if _has_training(kept, model.training) else model.variables
    places = _match(checkpoint, template, kept)
    _check_complete(checkpoint, template, places, kept)
    for slot in template.slots:
        if slot.path in places:
            _check_kind(checkpoint, model, slot, places[slot.path])
    alike = sum(words(slot) == words(path) for slot, path in places.items())
    return Located(model, template, places, dropped, alike)


def _begins(path: TreePath, start: str) -> bool:
    said = words((start,))
    return words(path)[: len(said)] == said


def _has_training(paths: Iterable[TreePath], template: Template) -> bool:
    """Whether a checkpoint holds anything of an optimizer, by what optax calls its state or by its places."""
    tails = {_tail(slot) for slot in template.slots if slot.role in ("optimizer", "bookkeeping")}
    split = [words(path) for path in paths]
    return any(OPTIMIZER in path or _longest(path, tails, 2 if len(path) > 1 else 1) for path in split) or any(
        path[-1:] in tails for path in split
    )


def _tail(slot: Slot) -> TreePath:
    """The words at the end of its path by which a slot is known."""
    if slot.role == "optimizer":
        split = words(slot.path)
        return split[split.index(OPTIMIZER) + 1 :]
    if slot.role == "bookkeeping" or slot.native is None:
        return words(slot.path)[-1:]
    return words((slot.native.path,))


def _longest(path: TreePath, tails: Iterable[TreePath], least: int = 1) -> TreePath | None:
    ending = [tail for tail in tails if len(tail) >= least and path[-len(tail) :] == tail]
    return max(ending, key=len, default=None)


def _group(slot: Slot) -> str:
    """Leaves whose paths must begin alike."""
    if slot.role == "variable" and slot.native is not None:
        return slot.native.collection
    return slot.role


@dataclass(frozen=True)
class _Candidate:
    path: TreePath
    before: TreePath
    slot: Slot


def _match(checkpoint: Checkpoint, template: Template, paths: Sequence[TreePath]) -> dict[TreePath, TreePath]:
    known: dict[TreePath, list[Slot]] = {}
    for slot in template.slots:
        known.setdefault(_tail(slot), []).append(slot)
    found = [candidate for path in paths if (candidate := _candidate(path, known, template)) is not None]
    begins = _beginnings(checkpoint, found)
    places: dict[TreePath, TreePath] = {}
    for candidate in found:
        if begins[_group(candidate.slot)] != candidate.before:
            continue
        before = places.setdefault(candidate.slot.path, candidate.path)
        if before != candidate.path:
            raise CheckpointError(
                f"{checkpoint.file}: {shown(before)!r} and {shown(candidate.path)!r} are both "
                f"{_called(candidate.slot)}. Say --drop with one of them."
            )
    return places


def _candidate(path: TreePath, known: Mapping[TreePath, list[Slot]], template: Template) -> _Candidate | None:
    split = words(path)
    if OPTIMIZER in split:
        at = split.index(OPTIMIZER) + 1
        tail = next((tail for tail in _without_collections(split[at:]) if tail in known), None)
        slots = [slot for slot in known.get(tail or (), []) if slot.role == "optimizer"]
        return _Candidate(path, split[:at], slots[0]) if slots else None
    tail = _longest(split, known)
    if tail is None:
        return None
    before = split[: -len(tail)]
    # Where two collections hold the same path, the one that is named before it.
    slots = sorted(known[tail], key=lambda slot: slot.role == "optimizer" or _group(slot) not in before)
    return _Candidate(path, before, slots[0])


def _without_collections(rest: TreePath) -> list[TreePath]:
    """What follows `opt_state`, and the same where the optimizer was given `{"params": ...}`."""
    return [rest, tuple(word for word in rest if word not in COLLECTIONS)]


def _beginnings(checkpoint: Checkpoint, found: Sequence[_Candidate]) -> dict[str, TreePath]:
    """What stands before the leaves of each group: what most of them have."""
    counts: dict[str, Counter[TreePath]] = {}
    for candidate in found:
        counts.setdefault(_group(candidate.slot), Counter())[candidate.before] += 1
    chosen = {}
    for group, counter in counts.items():
        (first, most), *others = counter.most_common()
        if others and others[0][1] == most:
            both = " and ".join(repr(shown(before) or ".") for before in (first, others[0][0]))
            raise CheckpointError(
                f"{checkpoint.file}: {both} hold {most} leaves of {group} each. Say --drop with one of them."
            )
        chosen[group] = first
    return chosen


def _called(slot: Slot) -> str:
    return " and ".join(leaf.name for leaf in slot.held[:SHOWN])


def _check_complete(
    checkpoint: Checkpoint, template: Template, places: Mapping[TreePath, TreePath], paths: Sequence[TreePath]
) -> None:
    used = set(places.values())
    extra = [path for path in paths if path not in used]
    missing = [slot for slot in template.slots if slot.path not in places and slot.role != "random"]
    if not missing and not extra:
        return
    if not used:
        raise CheckpointError(
            f"{checkpoint.file}: none of its {len(paths)} leaves, first {_first(paths)}, is one of the "
            f"{len(template.slots)} of {template.backend}, first {shown(template.slots[0].path)!r}. "
            "Give the case that the checkpoint is of."
        )
    said = []
    if missing:
        slot = missing[0]
        said.append(
            f"{len(missing)} of {len(template.slots)} leaves of {template.backend} are missing, first "
            f"{shown(slot.path)!r} {slot.spec} ({_called(slot)})"
        )
    if extra:
        expected = {shown(slot.path): None for slot in missing}
        close = difflib.get_close_matches(shown(extra[0]), expected, n=1, cutoff=0.6)
        hint = f"; it is close to {close[0]!r}" if close else ""
        said.append(
            f"{len(extra)} leaves belong to nothing in {template.backend}, first {_first(extra)} "
            f"{checkpoint.leaves[extra[0]]}{hint}"
        )
    mend = "Mend the case, or say --drop with what is to be left out." if extra else "Nothing is filled in for it."
    raise CheckpointError(f"{checkpoint.file}: {'; '.join(said)}. {mend}")


def _first(paths: Sequence[TreePath]) -> str:
    return repr(shown(paths[0])) if paths else "none"


def _check_kind(checkpoint: Checkpoint, model: Model, slot: Slot, path: TreePath) -> None:
    """Shape and dtype of one leaf; counts may be integers of any kind, since their values are looked at later."""
    there, wanted = checkpoint.leaves[path], key_data(slot.spec)
    if there.shape == wanted.shape and (there.dtype == wanted.dtype or (is_count(slot) and _integer(there))):
        return
    raise CheckpointError(
        f"{checkpoint.file}: leaf {shown(path)!r} is {there}, {model.port.backend} has {wanted} ({_called(slot)}). "
        f"{'Give the case the sizes of the checkpoint.' if there.shape != wanted.shape else 'Save it as that dtype.'}"
    )


def key_data(spec: LeafSpec) -> LeafSpec:
    """A leaf as it is stored: a key of `jax.random` as the integers that it is made of (threefry: two)."""
    if not spec.dtype.startswith("key<"):
        return spec
    return LeafSpec((*spec.shape, 4 if "rbg" in spec.dtype else 2), "uint32", spec.collection)


def is_count(slot: Slot) -> bool:
    """Whether a slot is a whole number beside the model: a step, the count of an optimizer."""
    return slot.role in ("bookkeeping", "optimizer") and slot.native is None and _integer(slot.spec)


def _integer(spec: LeafSpec) -> bool:
    return spec.dtype.startswith(("int", "uint")) and spec.dtype not in ("int4", "uint4") and np.prod(spec.shape) == 1
