"""Leaves that only one of two ports has, and that the case holds at a value: what a conversion makes of them.

Under a row `only(port, leaf, value)` the ports are the same where the leaf has the value. So the leaf is given it where
the old port lacks it, and is left out where the new port does: only if it has the value.
"""

import numpy as np

from equiv.backends.base import Port
from equiv.conversion.formats.checkpoint import CheckpointError, dtype_named
from equiv.conversion.source.located_checkpoint import LeafLocation, LocatedCheckpoint
from equiv.core.leaves import MappedLeaf
from equiv.programs.held_leaves import initial_arrays


def held_array(port: Port, leaf: MappedLeaf) -> np.ndarray:
    """The canonical array that a leaf is held at.

    Raises:
        CheckpointError: it is what the library initialises it to, and that is drawn.
    """
    if leaf.held != "initial":
        return np.full(leaf.spec.shape, leaf.held, dtype_named(leaf.spec.dtype))
    initial = initial_arrays(port, [leaf.key])[leaf.key]
    if initial is None:
        raise CheckpointError(
            f"{port.name}: {leaf.name} cannot be held at what {port.library} initialises it to, which is drawn.",
            fix=f"Give a number in the case: only({port.name!r}, {leaf.name!r}, value=0).",
            leaf=leaf.name,
        )
    return np.asarray(leaf.to_canonical(initial))


def describe_held(leaf: MappedLeaf) -> str:
    """What a leaf is held at, in words."""
    return "what its library initialises it to" if leaf.held == "initial" else f"{leaf.held:g}"


def check_has_held_value(source: LocatedCheckpoint, name: str, place: LeafLocation, target: str) -> None:
    """Raise where a leaf that the new port lacks does not have the value that the case holds it at.

    Raises:
        CheckpointError: naming the element that is farthest from it.
    """
    ours, held = source.canonical(name), held_array(source.located.model.port, place.leaf)
    if np.array_equal(ours, held):
        return
    difference = np.abs(ours.astype("float64") - held.astype("float64"))
    worst = np.unravel_index(int(np.argmax(difference)), difference.shape)
    raise CheckpointError(
        f"{source.checkpoint.file}: {name} is {float(ours[worst]):.6g} at {list(map(int, worst))}; the case says that "
        f"{target} lacks it and is the same where it is {describe_held(place.leaf)}.",
        fix=f"Give {target} this leaf: without it the model would be another one.",
        leaf=name,
    )
