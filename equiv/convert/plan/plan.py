"""What the new checkpoint is made of, settled before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from equiv.backends.leaf_table import by_key
from equiv.convert.formats.checkpoint import CheckpointError
from equiv.convert.formats.tree_paths import TreePath, shown
from equiv.convert.plan.leaf_sources import Row, row_of
from equiv.convert.plan.optimizer import Relation, relation_of
from equiv.convert.plan.preserved_leaves import KeptLeaf
from equiv.convert.plan.random_state import Random
from equiv.convert.source.expected_leaves import Model, Template
from equiv.convert.source.located_checkpoint import Source


@dataclass(frozen=True)
class Choices:
    """What nobody but the user can know.

    Attributes:
        random: policy for random state; None: there must be none.
        step: number of steps taken, for a library that keeps it where the other does not.
        kept: leaves from before a former conversion.
    """

    random: Random | None = None
    step: int | None = None
    kept: tuple[KeptLeaf, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A conversion that can be carried out.

    Attributes:
        source: the old checkpoint.
        target: whose the new one is.
        template: its form.
        rows: its leaves.
        relations: how parameters with optimizer state lie in the other library: relation to the first leaf of it.
        notes: what is left out or derived, in sentences.
    """

    source: Source
    target: Model
    template: Template
    rows: tuple[Row, ...]
    relations: Mapping[Relation, str]
    notes: tuple[str, ...]


def make_plan(source: Source, target: Model, choices: Choices) -> Plan:
    """Say of every leaf of the target where it is from.

    Raises:
        CheckpointError: a leaf has no source or no place, and nobody has said what to do.
    """
    located = source.located
    template = target.training if located.template is located.model.training else target.variables
    if choices.step is not None and not any(slot.role == "bookkeeping" for slot in template.slots):
        raise CheckpointError(f"--step {choices.step}: {template.backend} keeps no step here. Leave it out.")
    random = _random(source, target, template, choices)
    rows = []
    for slot in template.slots:
        if slot.role != "random":
            rows.append(row_of(source, target.port.backend, slot, choices.kept, choices.step))
        elif slot.path in random:
            rows.append(random[slot.path])
    notes = [f"{shown(path)} is left out, as asked" for path in located.dropped]
    notes += [f"{_name(row)} {row.rule}" for row in rows if row.slot.role == "bookkeeping" and row.rule]
    notes += [
        f"{_name(row)} {row.rule}, by {template.backend}'s own formula" for row in rows if row.origin == "settled"
    ]
    notes += _left(source, template)
    notes += choices.random.notes(source, template) if choices.random else []
    return Plan(source, target, template, tuple(rows), _relations(source, target, template), tuple(notes))


def _random(source: Source, target: Model, template: Template, choices: Choices) -> Mapping[TreePath, Row]:
    theirs = [shown(slot.path) for slot in template.slots if slot.role == "random"]
    ours = [shown(path) for path in source.random_paths()]
    if choices.random is not None:
        return choices.random.rows(source, target, template)
    if theirs:
        raise CheckpointError(
            f"{target.port.backend} keeps random state ({_few(theirs)}). Say --random seed:N to begin it anew, "
            "--random keep to take it from a checkpoint of the same library, or --random omit to leave it out."
        )
    if ours:
        raise CheckpointError(
            f"{source.checkpoint.file}: its random state ({_few(ours)}) has no place in {target.port.backend}. "
            "Say --random omit to leave it out."
        )
    return {}


def _name(row: Row) -> str:
    return row.slot.held[0].name


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _left(source: Source, template: Template) -> list[str]:
    """What of the source has no place in the target; unasked, only what is not lost by it may be left out.

    Raises:
        CheckpointError: something would be lost.
    """
    placed = {leaf.name for slot in template.slots for leaf in slot.held}
    counts = set(source.counts().values())
    steps = [(shown(path), path, int(source.read(path).reshape(()))) for path in source.located.steps]
    notes = []
    for name, path, value in steps:
        if counts != {value}:
            raise _homeless(source, template, path, f"= {value}")
        notes.append(f"{name} has no place in the case's train step; the optimizer's own count is the same")
    for name, place in source.places.items():
        if name in placed or place.slot.role == "random":
            continue
        if place.leaf.own:
            notes.append(f"{name} has no place in {template.backend}; the manifest keeps it for the way back")
        elif place.slot.role == "bookkeeping" and counts == {source.count(name)}:
            notes.append(f"{name} has no place in {template.backend}; the optimizer's own count is the same")
        else:
            raise _homeless(source, template, place.path, f"({name})")
    return notes


def _homeless(source: Source, template: Template, path: TreePath, said: str) -> CheckpointError:
    return CheckpointError(
        f"{source.checkpoint.file}: {shown(path)!r} {said} has no place in {template.backend}. "
        f"Make the models or optimizers one in the case, or say --drop {shown(path)}."
    )


def _relations(source: Source, target: Model, template: Template) -> dict[Relation, str]:
    """How the parameters that an optimizer keeps something of lie in the source."""
    found: dict[Relation, str] = {}
    ours = {leaf.name: leaf for leaf in source.located.model.table.leaves}
    held = by_key(target.table)
    optimized = dict.fromkeys(slot.native for slot in template.slots if slot.role == "optimizer" and slot.native)
    for key in optimized:
        theirs = held[key]
        found.setdefault(relation_of(tuple(ours[leaf.name] for leaf in theirs), theirs), theirs[0].name)
    return found
