"""The plan of a conversion: the source of every leaf, determined before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from equiv.backends.leaf_table import leaves_by_native_key
from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.conversion.formats.tree_paths import TreePath, path_text
from equiv.conversion.plan.held_values import check_has_held_value, describe_held
from equiv.conversion.plan.leaf_sources import PlannedLeaf, plan_leaf
from equiv.conversion.plan.optimizer import LayoutRelation, layout_relation
from equiv.conversion.plan.preserved_leaves import PreservedLeaf
from equiv.conversion.plan.random_state import RandomPolicy
from equiv.conversion.source.expected_leaves import CheckpointTemplate, LibraryModel
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint


@dataclass(frozen=True)
class Choices:
    """What only the user can decide.

    Attributes:
        random: policy for random state; None: there must be none.
        step: number of steps taken, for a library that stores it where the other does not.
        kept: leaves preserved by an earlier conversion.
    """

    random: RandomPolicy | None = None
    step: int | None = None
    kept: tuple[PreservedLeaf, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A conversion that can be carried out.

    Attributes:
        source: the old checkpoint.
        target: the library of the new one.
        template: its expected leaves.
        planned_leaves: its leaves, each with its source.
        relations: layouts, in the other library, of parameters with optimizer state: relation to its first leaf.
        notes: what is left out or derived, in sentences.
    """

    source: LocatedCheckpoint
    target: LibraryModel
    template: CheckpointTemplate
    planned_leaves: tuple[PlannedLeaf, ...]
    relations: Mapping[LayoutRelation, str]
    notes: tuple[str, ...]


def make_plan(source: LocatedCheckpoint, target: LibraryModel, choices: Choices) -> Plan:
    """Determine the source of every leaf of the target.

    Raises:
        CheckpointError: a leaf has no source or no place, and no option covers it.
    """
    located = source.located
    template = target.training if located.template is located.model.training else target.variables
    if choices.step is not None and not any(slot.role == "bookkeeping" for slot in template.slots):
        raise CheckpointError(f"--step {choices.step}: {template.port} stores no step here.", fix="Leave it out.")
    random = _planned_random(source, target, template, choices)
    rows = []
    for slot in template.slots:
        if slot.role != "random":
            rows.append(plan_leaf(source, target.port, slot, choices.kept, choices.step))
        elif slot.path in random:
            rows.append(random[slot.path])
    notes = [f"{path_text(path)} is left out (--drop)" for path in located.dropped]
    notes += [f"{_planned_name(row)} {row.rule}" for row in rows if row.slot.role == "bookkeeping" and row.rule]
    notes += [
        f"{_planned_name(row)} {row.rule}, by {template.port}'s own formula" for row in rows if row.origin == "derived"
    ]
    notes += [f"{row.rule}, as the case holds what {source.backend} lacks" for row in rows if row.origin == "held"]
    notes += _unplaced_notes(source, template)
    notes += choices.random.notes(source, template) if choices.random else []
    return Plan(source, target, template, tuple(rows), _layout_relations(source, target, template), tuple(notes))


def _planned_random(
    source: LocatedCheckpoint, target: LibraryModel, template: CheckpointTemplate, choices: Choices
) -> Mapping[TreePath, PlannedLeaf]:
    theirs = [path_text(slot.path) for slot in template.slots if slot.role == "random"]
    ours = [path_text(path) for path in source.random_paths()]
    if choices.random is not None:
        return choices.random.planned_leaves(source, target, template)
    if theirs:
        raise CheckpointError(
            f"{target.port.name} stores random state ({_shortened(theirs)}).",
            fix=(
                "Pass --random seed:N to initialise it, "
                "--random keep to take it from a checkpoint of the same library, or --random omit to leave it out."
            ),
        )
    if ours:
        raise CheckpointError(
            f"{source.checkpoint.file}: its random state ({_shortened(ours)}) has no place in {target.port.name}.",
            fix="Pass --random omit to leave it out.",
        )
    return {}


def _planned_name(row: PlannedLeaf) -> str:
    return row.slot.held[0].name


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _unplaced_notes(source: LocatedCheckpoint, template: CheckpointTemplate) -> list[str]:
    """Notes on leaves of the source that have no place in the target; only redundant ones may be left out.

    Raises:
        CheckpointError: something would be lost.
    """
    placed = {leaf.name for slot in template.slots for leaf in slot.held}
    counts = set(source.counts().values())
    steps = [(path_text(path), path, int(source.read(path).reshape(()))) for path in source.located.steps]
    notes = []
    for name, path, value in steps:
        if counts != {value}:
            raise _no_place_error(source, template, path, f"= {value}")
        notes.append(f"{name} has no place in the case's train step; the optimizer's own count is the same")
    for name, place in source.places.items():
        if name in placed or place.slot.role == "random":
            continue
        if place.leaf.library_only:
            notes.append(f"{name} has no place in {template.port}; the manifest preserves it for the way back")
        elif place.slot.role == "variable" and place.leaf.held is not None:
            check_has_held_value(source, name, place, template.port)
            notes.append(f"{name} is {describe_held(place.leaf)}, where the case says that {template.port} lacks it")
        elif place.slot.role == "bookkeeping" and counts == {source.count(name)}:
            notes.append(f"{name} has no place in {template.port}; the optimizer's own count is the same")
        else:
            raise _no_place_error(source, template, place.path, f"({name})")
    return notes


def _no_place_error(
    source: LocatedCheckpoint, template: CheckpointTemplate, path: TreePath, said: str
) -> CheckpointError:
    return CheckpointError(
        f"{source.checkpoint.file}: {path_text(path)!r} {said} has no place in {template.port}.",
        fix=f"Make the models or optimizers equal in the case, or pass --drop {path_text(path)}.",
    )


def _layout_relations(
    source: LocatedCheckpoint, target: LibraryModel, template: CheckpointTemplate
) -> dict[LayoutRelation, str]:
    """The layout relations of parameters that have optimizer state, each with its first leaf."""
    found: dict[LayoutRelation, str] = {}
    ours = {leaf.name: leaf for leaf in source.located.model.table.leaves}
    held = leaves_by_native_key(target.table)
    optimized = dict.fromkeys(slot.native for slot in template.slots if slot.role == "optimizer" and slot.native)
    for key in optimized:
        theirs = held[key]
        found.setdefault(layout_relation(tuple(ours[leaf.name] for leaf in theirs), theirs), theirs[0].name)
    return found
