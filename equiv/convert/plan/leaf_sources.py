"""What one leaf of the new checkpoint is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from equiv.convert.formats.checkpoint import CheckpointError, dtype_of
from equiv.convert.formats.tree_paths import TreePath
from equiv.convert.plan.preserved_leaves import KeptLeaf
from equiv.convert.source.expected_leaves import Slot
from equiv.convert.source.located_checkpoint import Source
from equiv.convert.source.validate import is_count
from equiv.core.leaves import MappedLeaf
from equiv.core.packing import to_native

Origin = Literal["as it is", "laid out anew", "counted", "settled", "kept", "seeded", "given"]
"""Where a leaf is from: the same bytes; through a layout; a whole number by its value; a leaf that only this library
has, by its own formula; the leaf as it was before a former conversion; begun anew; from the command line."""


@dataclass(frozen=True)
class Row:
    """One leaf of the new checkpoint.

    Attributes:
        slot: what it has to be.
        origin: see `Origin`.
        sources: paths in the old checkpoint.
        rule: the layouts that it goes through, or the value that it takes, in words.
        make: gives it.
    """

    slot: Slot
    origin: Origin
    sources: tuple[TreePath, ...]
    rule: str
    make: Callable[[], np.ndarray]


def row_of(source: Source, backend: str, slot: Slot, kept: Sequence[KeptLeaf], step: int | None) -> Row:
    """Say where a leaf is from.

    Args:
        source: the old checkpoint.
        backend: the library of the new one.
        slot: what the leaf has to be.
        kept: leaves from before a former conversion.
        step: number of steps taken, where the user says it.

    Raises:
        CheckpointError: it is from nowhere, or of another dtype or shape.
    """
    if found := next((leaf for leaf in kept if leaf.backend == backend and leaf.fits(source, slot)), None):
        return Row(slot, "kept", (), "as it was before", found.array)
    missing = [leaf for leaf in slot.held if leaf.name not in source.places]
    if not missing:
        if slot.role == "bookkeeping" and step is not None:
            raise CheckpointError(
                f"{source.checkpoint.file}: it says that {slot.held[0].name} is {source.count(slot.held[0].name)}. "
                f"Leave out --step {step}."
            )
        return _converted(source, backend, slot)
    leaf = missing[0]
    if len(slot.held) == 1 and leaf.own:
        return _settled(source, slot, leaf)
    if slot.role == "bookkeeping":
        return _step(source, backend, slot, step)
    raise CheckpointError(
        f"{source.checkpoint.file}: {backend} has {leaf.name} {leaf.spec}, which {source.backend} has not. "
        "The two have different models or optimizers: make them one in the case, or say --drop opt_state."
    )


def _converted(source: Source, backend: str, slot: Slot) -> Row:
    places = [source.places[leaf.name] for leaf in slot.held]
    paths = tuple(dict.fromkeys(place.path for place in places))
    if is_count(slot):
        return Row(slot, "counted", paths, "", lambda: _number(source, slot, source.count(slot.held[0].name)))
    for place, wanted in zip(places, slot.held, strict=True):
        _check(source, backend, (place.slot, slot), (place.leaf, wanted))
    ours, theirs = tuple(place.leaf for place in places), slot.held
    if len(ours) == 1 and _alike(ours[0], theirs[0]):
        return Row(slot, "as it is", paths, "", partial(source.read, paths[0]))
    rules = dict.fromkeys(leaf.rule for leaf in (*ours, *theirs) if leaf.rule)
    return Row(slot, "laid out anew", paths, "; ".join(rules), partial(_laid_out, source, slot))


def _alike(ours: MappedLeaf, theirs: MappedLeaf) -> bool:
    """Whether both libraries hold one leaf, and nothing else with it, in the same form."""
    whole = ours.region is None and theirs.region is None
    return whole and (ours.layout, ours.native_shape) == (theirs.layout, theirs.native_shape)


def _check(source: Source, backend: str, slots: tuple[Slot, Slot], leaves: tuple[MappedLeaf, MappedLeaf]) -> None:
    """Raise where a leaf would have to be cast or cut, or has no canonical form in which the two could meet."""
    name, (ours, theirs) = leaves[1].name, (slot.spec.dtype for slot in slots)
    if ours != theirs:
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {ours} in {source.backend} and {theirs} in {backend}. "
            "Give both models one dtype: nothing is cast."
        )
    if _alike(*leaves):
        return
    if all(slot.whole for slot in slots) and leaves[0].spec.shape != leaves[1].spec.shape:
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {leaves[0].spec} in {source.backend} and {leaves[1].spec} in "
            f"{backend}. Mend the case: its row names two different layers, or the models differ."
        )
    if not all(slot.whole for slot in slots):
        raise CheckpointError(
            f"{source.checkpoint.file}: {name} is {slots[0].spec} in {source.backend} and {slots[1].spec} in "
            f"{backend}: it is not laid out like its parameter, so that it cannot be moved. Say --drop opt_state."
        )


def _laid_out(source: Source, slot: Slot) -> np.ndarray:
    return np.asarray(to_native(slot.held, {leaf.name: source.canonical(leaf.name) for leaf in slot.held}))


def _number(source: Source, slot: Slot, value: int) -> np.ndarray:
    """A count in the integer that the target keeps it in.

    Raises:
        CheckpointError: it does not fit.
    """
    dtype = dtype_of(slot.spec.dtype)
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise CheckpointError(
            f"{source.checkpoint.file}: {slot.held[0].name} is {value}, which {dtype} does not hold. Mend the count."
        )
    return np.full(slot.spec.shape, value, dtype)


def _settled(source: Source, slot: Slot, leaf: MappedLeaf) -> Row:
    """A leaf that only the target has, by the library's own formula where nothing hangs on it any more."""
    if leaf.copies is not None:
        base = leaf.copies

        def make() -> np.ndarray:
            return np.asarray(to_native(slot.held, {leaf.name: source.canonical(base)}))

        return Row(slot, "settled", (source.places[base].path,), f"= {base}", make)
    value = leaf.constant or 0
    return Row(slot, "settled", (), f"= {value}", partial(_number, source, slot, value))


def _step(source: Source, backend: str, slot: Slot, step: int | None) -> Row:
    """A count that only the target keeps: as given, else the optimizer's own count of its updates."""
    if step is not None:
        return Row(slot, "given", (), f"= {step}", partial(_number, source, slot, step))
    name, counts = slot.held[0].name, source.counts()
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{key} = {value}" for key, value in counts.items()) or "there is none"
        raise CheckpointError(
            f"{source.checkpoint.file}: {backend} keeps {name!r}, which is not in it, and the optimizer's own counts "
            f"do not give it: {found}. Say --step N."
        )
    first, value = next(iter(counts.items()))
    rule = f"= {value}, the value of {first}"
    return Row(slot, "counted", (source.places[first].path,), rule, partial(_number, source, slot, value))
