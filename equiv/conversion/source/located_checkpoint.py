"""The canonical variables of a checkpoint, read leaf by leaf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from equiv.conversion.formats.checkpoint import Checkpoint, CheckpointError
from equiv.conversion.formats.tree_paths import TreePath, path_text
from equiv.conversion.source.expected_leaves import Slot
from equiv.conversion.source.locate import TemplateMatch
from equiv.conversion.source.validate import is_count
from equiv.core.leaves import MappedLeaf

FINITE_CHECK_CHUNK = 2**20
"""Elements that are checked for NaN at a time: a larger chunk does not fit the cache."""


@dataclass(frozen=True)
class LeafLocation:
    """Location of a canonical leaf: its slot, its layout in the slot, and the path in the checkpoint."""

    slot: Slot
    leaf: MappedLeaf
    path: TreePath


@dataclass
class LocatedCheckpoint:
    """A checkpoint with the location of every canonical leaf.

    Attributes:
        checkpoint: opened.
        located: its match to the template of a library.
        nonfinite: whether NaN and infinite values are accepted.
    """

    checkpoint: Checkpoint
    located: TemplateMatch
    nonfinite: bool = False
    _last: tuple[TreePath, np.ndarray] | None = field(default=None, init=False)

    @cached_property
    def places(self) -> Mapping[str, LeafLocation]:
        """Canonical name to its location."""
        located = self.located
        return {
            leaf.name: LeafLocation(slot, leaf, located.places[slot.path])
            for slot in located.template.slots
            if slot.path in located.places
            for leaf in slot.held
        }

    @property
    def backend(self) -> str:
        """The library of the checkpoint."""
        return self.located.model.port.name

    def random_paths(self) -> list[TreePath]:
        """Paths of the library's own random state, where the model of the case has it and where it has not."""
        slots = [slot for slot in self.located.template.slots if slot.role == "random"]
        own = [self.located.places[slot.path] for slot in slots if slot.path in self.located.places]
        return [*own, *self.located.other_random]

    def read(self, path: TreePath) -> np.ndarray:
        """One leaf as stored in the checkpoint; the last one is cached, since packed leaves are read several times.

        Raises:
            CheckpointError: the leaf cannot be read, or holds a NaN or an infinite value.
        """
        if self._last is None or self._last[0] != path:
            self._last = None  # freed before the next is read: two are never in memory at once
            array = self.checkpoint.read(path)
            if not self.nonfinite:
                check_finite(f"{self.checkpoint.file}: leaf {path_text(path)!r}", array)
            self._last = (path, array)
        return self._last[1]

    def canonical(self, name: str) -> np.ndarray:
        """One canonical leaf."""
        place = self.places[name]
        return place.leaf.to_canonical(self.read(place.path))

    def count(self, name: str) -> int:
        """The value of a count of any integer dtype."""
        return int(self.read(self.places[name].path).reshape(()))

    def counts(self) -> dict[str, int]:
        """The optimizer's own counts of its updates, by canonical name."""
        return {
            name: self.count(name)
            for name, place in self.places.items()
            if place.slot.role == "optimizer" and is_count(place.slot) and name.endswith("/count")
        }


def check_finite(what: str, array: np.ndarray) -> None:
    """Raise where an array of floats holds a NaN or an infinite value.

    Raises:
        CheckpointError: naming the first.
    """
    if array.dtype.kind in "iub":
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, FINITE_CHECK_CHUNK):
        fine = np.isfinite(flat[start : start + FINITE_CHECK_CHUNK])
        if not fine.all():
            first = start + int(np.argmin(fine))
            index = list(map(int, np.unravel_index(first, array.shape)))
            raise CheckpointError(
                f"{what} is {flat[first]} at {index}.", fix="Use an earlier checkpoint, or pass --allow-nonfinite."
            )
