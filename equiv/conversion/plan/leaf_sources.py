"""The source of each leaf of the new checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from equiv.backends.base import Port
from equiv.conversion.formats.checkpoint import CheckpointError, dtype_named
from equiv.conversion.formats.tree_paths import TreePath
from equiv.conversion.plan.held_values import describe_held, held_array
from equiv.conversion.plan.preserved_leaves import PreservedLeaf
from equiv.conversion.source.expected_leaves import Slot
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint
from equiv.conversion.source.validate import is_count
from equiv.core.leaves import MappedLeaf
from equiv.core.packing import assemble_native_leaf

LeafOrigin = Literal["unchanged", "converted", "counted", "derived", "preserved", "seeded", "given", "held"]
"""Source of a leaf: the same bytes; the same values in another layout; an integer by its value; a leaf that only this
library has, by its own formula; the leaf as it was before an earlier conversion; initialised from a seed; from the
command line; a leaf, or parts of one, that only this port has, from the case's row `only`."""


@dataclass(frozen=True)
class PlannedLeaf:
    """One leaf of the new checkpoint.

    Attributes:
        slot: the expected leaf.
        origin: see `LeafOrigin`.
        sources: paths in the old checkpoint.
        rule: the layouts that are applied, or the value, in words.
        make: computes it.
    """

    slot: Slot
    origin: LeafOrigin
    sources: tuple[TreePath, ...]
    rule: str
    make: Callable[[], np.ndarray]


def plan_leaf(
    source: LocatedCheckpoint, target: Port, slot: Slot, kept: Sequence[PreservedLeaf], step: int | None
) -> PlannedLeaf:
    """Determine the source of a leaf.

    Args:
        source: the old checkpoint.
        target: the port of the new one.
        slot: the expected leaf.
        kept: leaves preserved by an earlier conversion.
        step: number of steps taken, where the user gives it.

    Raises:
        CheckpointError: it has no source, or one of another dtype or shape.
    """
    backend = target.name
    if found := next((leaf for leaf in kept if leaf.backend == backend and leaf.fits(source, slot)), None):
        return PlannedLeaf(slot, "preserved", (), "as before the earlier conversion", found.array)
    missing = [leaf for leaf in slot.held if leaf.name not in source.places]
    if not missing:
        if slot.role == "bookkeeping" and step is not None:
            raise CheckpointError(
                f"{source.checkpoint.file}: its {slot.held[0].name} is {source.count(slot.held[0].name)}.",
                fix=f"Leave out --step {step}.",
            )
        return _converted_leaf(source, backend, slot)
    leaf = missing[0]
    if len(slot.held) == 1 and leaf.library_only:
        return _derived_leaf(source, slot, leaf)
    if slot.role == "bookkeeping":
        return _step_leaf(source, backend, slot, step)
    if slot.role == "variable" and all(one.held is not None for one in missing):
        return _held_leaf(source, target, slot)
    raise CheckpointError(
        f"{source.checkpoint.file}: {backend} has {leaf.name} {leaf.spec}, which {source.backend} has not. "
        "The two have different models or optimizers.",
        fix="Make them equal in the case, or pass --drop opt_state.",
        leaf=leaf.name,
    )


def _converted_leaf(source: LocatedCheckpoint, backend: str, slot: Slot) -> PlannedLeaf:
    places = [source.places[leaf.name] for leaf in slot.held]
    paths = tuple(dict.fromkeys(place.path for place in places))
    if is_count(slot):
        return PlannedLeaf(
            slot, "counted", paths, "", lambda: _integer_array(source, slot, source.count(slot.held[0].name))
        )
    for place, wanted in zip(places, slot.held, strict=True):
        _check_convertible(source, backend, (place.slot, slot), (place.leaf, wanted))
    ours, theirs = tuple(place.leaf for place in places), slot.held
    if len(ours) == 1 and _same_form(ours[0], theirs[0]):
        return PlannedLeaf(slot, "unchanged", paths, "", partial(source.read, paths[0]))
    rules = dict.fromkeys(leaf.storage_description for leaf in (*ours, *theirs) if leaf.storage_description)
    return PlannedLeaf(slot, "converted", paths, "; ".join(rules), partial(_apply_layouts, source, slot))


def _held_leaf(source: LocatedCheckpoint, target: Port, slot: Slot) -> PlannedLeaf:
    """A leaf of which the old port lacks all or some parts, which the case holds at a value."""
    places = [(leaf, source.places.get(leaf.name)) for leaf in slot.held]
    for leaf, place in places:
        if place is not None:
            _check_convertible(source, target.name, (place.slot, slot), (place.leaf, leaf))

    def make() -> np.ndarray:
        parts = {
            leaf.name: held_array(target, leaf) if place is None else source.canonical(leaf.name)
            for leaf, place in places
        }
        return np.asarray(assemble_native_leaf(slot.held, parts))

    rule = "; ".join(f"{leaf.name} = {describe_held(leaf)}" for leaf, place in places if place is None)
    paths = tuple(dict.fromkeys(place.path for _, place in places if place is not None))
    return PlannedLeaf(slot, "held", paths, rule, make)


def _same_form(ours: MappedLeaf, theirs: MappedLeaf) -> bool:
    """Whether both libraries store a leaf by itself, in the same layout and shape."""
    whole = ours.region is None and theirs.region is None
    return whole and (ours.layout, ours.native_shape) == (theirs.layout, theirs.native_shape)


def _check_convertible(
    source: LocatedCheckpoint, backend: str, slots: tuple[Slot, Slot], leaves: tuple[MappedLeaf, MappedLeaf]
) -> None:
    """Raise where a leaf would have to be cast or sliced, or has no common canonical form."""
    name, (ours, theirs) = leaves[1].name, (slot.spec.dtype for slot in slots)
    if ours != theirs:
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {ours} in {source.backend} and {theirs} in {backend}.",
            fix="Give both models one dtype: nothing is cast.",
        )
    if _same_form(*leaves):
        return
    if all(slot.whole for slot in slots) and leaves[0].spec.shape != leaves[1].spec.shape:
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {leaves[0].spec} in {source.backend} and {leaves[1].spec} in "
            f"{backend}.",
            fix="Fix the case: its row names two different layers, or the models differ.",
        )
    if not all(slot.whole for slot in slots):
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {slots[0].spec} in {source.backend} and {slots[1].spec} in "
            f"{backend}: it does not have the layout of its parameter, so it cannot be converted.",
            fix="Pass --drop opt_state.",
        )


def _apply_layouts(source: LocatedCheckpoint, slot: Slot) -> np.ndarray:
    return np.asarray(assemble_native_leaf(slot.held, {leaf.name: source.canonical(leaf.name) for leaf in slot.held}))


def _integer_array(source: LocatedCheckpoint, slot: Slot, value: int) -> np.ndarray:
    """A count as an array of the target's integer dtype.

    Raises:
        CheckpointError: the dtype cannot hold it.
    """
    dtype = dtype_named(slot.spec.dtype)
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise CheckpointError(
            f"{source.checkpoint.file}: {slot.held[0].name} is {value}, which {dtype} cannot hold.",
            fix="Fix the count.",
        )
    return np.full(slot.spec.shape, value, dtype)


def _derived_leaf(source: LocatedCheckpoint, slot: Slot, leaf: MappedLeaf) -> PlannedLeaf:
    """A leaf that only the target has, by the library's own formula where no training step depends on it."""
    if leaf.mirrors is not None:
        base = leaf.mirrors

        def make() -> np.ndarray:
            return np.asarray(assemble_native_leaf(slot.held, {leaf.name: source.canonical(base)}))

        return PlannedLeaf(slot, "derived", (source.places[base].path,), f"= {base}", make)
    value = leaf.fixed_value or 0
    return PlannedLeaf(slot, "derived", (), f"= {value}", partial(_integer_array, source, slot, value))


def _step_leaf(source: LocatedCheckpoint, backend: str, slot: Slot, step: int | None) -> PlannedLeaf:
    """A count that only the target stores: as given, else the optimizer's own count of its updates."""
    if step is not None:
        return PlannedLeaf(slot, "given", (), f"= {step}", partial(_integer_array, source, slot, step))
    name, counts = slot.held[0].name, source.counts()
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{key} = {value}" for key, value in counts.items()) or "there is none"
        raise CheckpointError(
            f"{source.checkpoint.file}: {backend} stores {name!r}, which the checkpoint lacks, and the optimizer's own "
            f"counts do not determine it: {found}.",
            fix="Pass --step N.",
        )
    first, value = next(iter(counts.items()))
    rule = f"= {value}, the value of {first}"
    return PlannedLeaf(
        slot, "counted", (source.places[first].path,), rule, partial(_integer_array, source, slot, value)
    )
