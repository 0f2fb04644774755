"""Leaves of a checkpoint to the slots of a template: none missing, none left, none twice."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError
from equiv.convert.formats.tree_paths import TreePath, shown, words
from equiv.convert.source.expected_leaves import OPTIMIZER, Model, Role, Slot, Template
from equiv.convert.source.validate import called, check_complete, check_kind, is_number

COLLECTIONS = ("params",)
"""Words between an optimizer's slot and a parameter where a whole variable tree was optimized."""


STEP = "step"
"""What train states of Flax call their count (flax 0.12.8, `training/train_state.py`)."""


@dataclass(frozen=True)
class Located:
    """A checkpoint as a template of one library.

    Attributes:
        model: whose.
        template: `model.variables`, or `model.training` where the checkpoint has an optimizer.
        places: path of a slot to path in the checkpoint; slots of random state may be missing.
        dropped: paths in the checkpoint that are left out because the user said so.
        steps: paths of a count of steps beside the optimizer's own, which the case's train step does not carry.
        alike: how many leaves are called exactly as this package calls them.
    """

    model: Model
    template: Template
    places: Mapping[TreePath, TreePath]
    dropped: tuple[TreePath, ...]
    steps: tuple[TreePath, ...]
    alike: int


def locate(checkpoint: Checkpoint, model: Model, drop: Sequence[str] = ()) -> Located:
    """Find every slot of a library's template in a checkpoint.

    A leaf is known by the end of its path: what stands before the parameters (`params/params`, `model`, a step) may
    be anything, but one and the same thing for all leaves of a collection.

    Args:
        checkpoint: opened.
        model: the library's side of the case.
        drop: what is left out: parts of paths, `opt_state` or `ema/linear`. A step goes with the optimizer's state.

    Raises:
        Unfit: a leaf is missing, extra, or of another shape or dtype.
        CheckpointError: a leaf is there twice; nothing is what `drop` says; or the case's train step cannot be
            used, and is needed.
    """
    asked = {part: words((part,)) for part in drop}
    kinds = _kinds(checkpoint, model)
    for said, part in asked.items():
        if not any(_has(words(path), part) for path in checkpoint.leaves):
            first = shown(next(iter(checkpoint.leaves), ()))
            raise CheckpointError(
                f"{checkpoint.file}: --drop {said}: no leaf has that in its path; the first is {first!r}. Leave it out."
            )
    without = any(OPTIMIZER in part for part in asked.values())
    dropped = tuple(
        path
        for path, kind in kinds.items()
        if any(_has(words(path), part) for part in asked.values()) or (without and kind == "bookkeeping")
    )
    left_out = set(dropped)
    kept = [path for path in checkpoint.leaves if path not in left_out]
    template = model.variables if all(kinds[path] == "variable" for path in kept) else model.training
    places = _match(checkpoint, template, kept)
    steps = _steps(checkpoint, template, set(kept).difference(places.values()))
    check_complete(checkpoint, template, places, [path for path in kept if path not in steps])
    for slot in template.slots:
        if slot.path in places:
            check_kind(checkpoint, slot, places[slot.path], template)
    alike = sum(words(slot) == words(path) for slot, path in places.items())
    return Located(model, template, places, dropped, steps, alike)


def _steps(checkpoint: Checkpoint, template: Template, left: Container[TreePath]) -> tuple[TreePath, ...]:
    """The `step` of a train state, where the case's train step carries an optimizer but no count."""
    roles = {slot.role for slot in template.slots}
    if "optimizer" not in roles or "bookkeeping" in roles:
        return ()
    leaves = checkpoint.leaves.items()
    return tuple(path for path, spec in leaves if path in left and words(path)[-1:] == (STEP,) and is_number(spec))


def _has(path: TreePath, part: TreePath) -> bool:
    """Whether a path has these words in a row."""
    return any(path[at : at + len(part)] == part for at in range(len(path) - len(part) + 1))


def _kinds(checkpoint: Checkpoint, model: Model) -> dict[TreePath, Role]:
    """Whether each leaf is of the model, or of what optax or a train state keeps beside it."""
    beside: dict[TreePath, Role] = {_tail(slot): slot.role for slot in model.optimizer}
    variables = {_tail(slot) for slot in model.variables.slots}

    def kind(path: TreePath) -> Role:
        if OPTIMIZER in path:
            return "optimizer"
        found, variable = _longest(path, beside), _longest(path, variables)
        # `0/mu/linear/kernel` ends in a variable too, which is shorter.
        return beside[found] if found and len(found) > len(variable or ()) else "variable"

    return {path: kind(words(path)) for path in checkpoint.leaves}


def _tail(slot: Slot) -> TreePath:
    """The words at the end of its path by which a slot is known."""
    if slot.role == "optimizer":
        split = words(slot.path)
        return split[split.index(OPTIMIZER) + 1 :]
    if slot.role == "bookkeeping" or slot.native is None:
        return words(slot.path)[-1:]
    return words((slot.native.path,))


def _longest(path: TreePath, tails: Container[TreePath]) -> TreePath | None:
    """The longest end of a path that is one of `tails`."""
    return next((path[start:] for start in range(len(path)) if path[start:] in tails), None)


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
                f"{called(candidate.slot)}. Say --drop with one of them."
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
