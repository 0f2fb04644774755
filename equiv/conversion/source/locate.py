"""Match leaves of a checkpoint to the slots of a template: none missing, no extra ones, no duplicates."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from equiv.conversion.formats.checkpoint import Checkpoint, CheckpointError
from equiv.conversion.formats.tree_paths import TreePath, path_text, path_words
from equiv.conversion.source.expected_leaves import OPTIMIZER, CheckpointTemplate, LibraryModel, Role, Slot
from equiv.conversion.source.other_random_state import find_other_random_state
from equiv.conversion.source.validate import (
    check_complete,
    check_specs,
    is_number,
    optimizer_word,
    slot_names,
)

COLLECTIONS = ("params",)
"""Keys between an optimizer's slot and a parameter where a whole variable tree was optimized."""

STEP = "step"
"""Name of the count in train states of Flax (flax 0.12.8, `training/train_state.py`)."""


@dataclass(frozen=True)
class TemplateMatch:
    """A checkpoint matched to the template of one library.

    Attributes:
        model: the model of that library.
        template: `model.variables`, or `model.training` where the checkpoint has an optimizer.
        places: path of a slot to path in the checkpoint; slots of random state may be missing.
        dropped: paths in the checkpoint that are left out by `--drop`.
        steps: paths of a count of steps other than the optimizer's own, which the case's train step does not carry.
        other_random: paths of random state that the model of the case stores elsewhere or not at all, as another
            release of NNX does.
        exact_names: number of leaves whose path is exactly the one that this package would write.
    """

    model: LibraryModel
    template: CheckpointTemplate
    places: Mapping[TreePath, TreePath]
    dropped: tuple[TreePath, ...]
    steps: tuple[TreePath, ...]
    other_random: tuple[TreePath, ...]
    exact_names: int

    @property
    def keeps_no_streams(self) -> bool:
        """Whether the library's template has no random state."""
        return not any(slot.role == "random" for slot in self.template.slots)


def match_template(checkpoint: Checkpoint, model: LibraryModel, drop: Sequence[str] = ()) -> TemplateMatch:
    """Find every slot of a library's template in a checkpoint.

    A leaf is identified by the end of its path: the prefix (`params/params`, `model`, a step) may be anything, but
    must be the same for all leaves of a collection.

    Args:
        checkpoint: opened.
        model: the model of the library.
        drop: parts of paths to leave out, `opt_state` or `ema/linear`. `opt_state`, and T5X's `param_states`, leave out
            the step too.

    Raises:
        TemplateMismatch: a leaf is missing, extra, or of another shape or dtype.
        CheckpointError: a leaf is duplicated; no leaf matches `drop`; or the case's train step cannot be used, and is
            needed.
    """
    asked = {part: path_words((part,)) for part in drop}
    kinds = _roles(checkpoint, model)
    for option, part in asked.items():
        if not any(_contains_words(path_words(path), part) for path in checkpoint.leaves):
            first = path_text(next(iter(checkpoint.leaves), ()))
            raise CheckpointError(
                f"{checkpoint.file}: --drop {option}: no leaf has that in its path; the first leaf is {first!r}.",
                fix="Leave the option out.",
            )
    without = any(optimizer_word(part) for part in asked.values())
    dropped = tuple(
        path
        for path, kind in kinds.items()
        if any(_contains_words(path_words(path), part) for part in asked.values())
        or (without and (kind == "bookkeeping" or _is_step_of_none(checkpoint, model, path)))
    )
    left_out = set(dropped)
    kept = [path for path in checkpoint.leaves if path not in left_out]
    template = model.variables if all(kinds[path] == "variable" for path in kept) else model.training
    places = _match_paths(checkpoint, template, kept)
    left = set(kept).difference(places.values())
    steps = _steps(checkpoint, template, left)
    random = find_other_random_state({path: spec for path, spec in checkpoint.leaves.items() if path in left})
    accounted = {*steps, *random}
    check_complete(checkpoint, template, places, [path for path in kept if path not in accounted])
    check_specs(checkpoint, template, places)
    exact_names = sum(path_words(slot) == path_words(path) for slot, path in places.items())
    return TemplateMatch(model, template, places, dropped, steps, random, exact_names)


def _is_step_of_none(checkpoint: Checkpoint, model: LibraryModel, path: TreePath) -> bool:
    """Whether a leaf is a count called `step` that is no variable of the model, such as that beside T5X's optimizer."""
    words = path_words(path)
    variables = {_tail(slot) for slot in model.variables.slots}
    return words[-1:] == (STEP,) and is_number(checkpoint.leaves[path]) and _longest_suffix(words, variables) is None


def _steps(checkpoint: Checkpoint, template: CheckpointTemplate, left: Container[TreePath]) -> tuple[TreePath, ...]:
    """The `step` of a train state, where the case's train step carries an optimizer but no count."""
    roles = {slot.role for slot in template.slots}
    if "optimizer" not in roles or "bookkeeping" in roles:
        return ()
    leaves = checkpoint.leaves.items()
    return tuple(path for path, spec in leaves if path in left and path_words(path)[-1:] == (STEP,) and is_number(spec))


def _contains_words(path: TreePath, part: TreePath) -> bool:
    """Whether a path contains these words consecutively."""
    return any(path[at : at + len(part)] == part for at in range(len(path) - len(part) + 1))


def _roles(checkpoint: Checkpoint, model: LibraryModel) -> dict[TreePath, Role]:
    """The role of each leaf: of the model, of the optimizer or a count of the train state."""
    others: dict[TreePath, Role] = {_tail(slot): slot.role for slot in model.optimizer}
    variables = {_tail(slot) for slot in model.variables.slots}

    def kind(path: TreePath) -> Role:
        if optimizer_word(path):
            return "optimizer"
        found, variable = _longest_suffix(path, others), _longest_suffix(path, variables)
        # `0/mu/linear/kernel` ends in a variable too, which is shorter.
        return others[found] if found and len(found) > len(variable or ()) else "variable"

    return {path: kind(path_words(path)) for path in checkpoint.leaves}


def _tail(slot: Slot) -> TreePath:
    """The words at the end of its path that identify a slot."""
    if slot.role == "optimizer":
        split = path_words(slot.path)
        return split[split.index(OPTIMIZER) + 1 :]
    if slot.role == "bookkeeping" or slot.native is None:
        return path_words(slot.path)[-1:]
    return path_words((slot.native.path,))


def _longest_suffix(path: TreePath, tails: Container[TreePath]) -> TreePath | None:
    """The longest suffix of a path that is one of `tails`."""
    return next((path[start:] for start in range(len(path)) if path[start:] in tails), None)


def _group(slot: Slot) -> str:
    """Name of the group of leaves whose paths must have the same prefix."""
    if slot.role == "variable" and slot.native is not None:
        return slot.native.collection
    return slot.role


@dataclass(frozen=True)
class _MatchCandidate:
    path: TreePath
    prefix: TreePath
    slot: Slot


def _match_paths(
    checkpoint: Checkpoint, template: CheckpointTemplate, paths: Sequence[TreePath]
) -> dict[TreePath, TreePath]:
    known: dict[TreePath, list[Slot]] = {}
    for slot in template.slots:
        known.setdefault(_tail(slot), []).append(slot)
    found = [candidate for path in paths if (candidate := _match_candidate(path, known, template)) is not None]
    prefixes = _group_prefixes(checkpoint, found)
    places: dict[TreePath, TreePath] = {}
    for candidate in found:
        if prefixes[_group(candidate.slot)] != candidate.prefix:
            continue
        first = places.setdefault(candidate.slot.path, candidate.path)
        if first != candidate.path:
            raise CheckpointError(
                f"{checkpoint.file}: {path_text(first)!r} and {path_text(candidate.path)!r} are both "
                f"{slot_names(candidate.slot)}.",
                fix="Pass --drop with one of them.",
            )
    return places


def _match_candidate(
    path: TreePath, known: Mapping[TreePath, list[Slot]], template: CheckpointTemplate
) -> _MatchCandidate | None:
    split = path_words(path)
    if word := optimizer_word(split):
        at = split.index(word) + 1
        tail = next((tail for tail in _without_collections(split[at:]) if tail in known), None)
        slots = [slot for slot in known.get(tail or (), []) if slot.role == "optimizer"]
        return _MatchCandidate(path, split[:at], slots[0]) if slots else None
    tail = _longest_suffix(split, known)
    if tail is None:
        return None
    before = split[: -len(tail)]
    # Where two collections hold the same path, the one that the prefix names.
    slots = sorted(known[tail], key=lambda slot: slot.role == "optimizer" or _group(slot) not in before)
    return _MatchCandidate(path, before, slots[0])


def _without_collections(rest: TreePath) -> list[TreePath]:
    """The path after `opt_state`, and the same without `params`, for an optimizer of `{"params": ...}`."""
    return [rest, tuple(word for word in rest if word not in COLLECTIONS)]


def _group_prefixes(checkpoint: Checkpoint, found: Sequence[_MatchCandidate]) -> dict[str, TreePath]:
    """The prefix of each group of leaves: the most common one."""
    counts: dict[str, Counter[TreePath]] = {}
    for candidate in found:
        counts.setdefault(_group(candidate.slot), Counter())[candidate.prefix] += 1
    chosen = {}
    for group, counter in counts.items():
        (first, most), *others = counter.most_common()
        if others and others[0][1] == most:
            both = " and ".join(repr(path_text(before) or ".") for before in (first, others[0][0]))
            raise CheckpointError(
                f"{checkpoint.file}: {both} hold {most} leaves of {group} each.", fix="Pass --drop with one of them."
            )
        chosen[group] = first
    return chosen
