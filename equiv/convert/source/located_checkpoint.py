"""A located checkpoint as canonical variables, read leaf by leaf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError
from equiv.convert.formats.tree_paths import TreePath, shown
from equiv.convert.source.expected_leaves import OPTIMIZER, Slot
from equiv.convert.source.locate import Located
from equiv.convert.source.validate import is_count
from equiv.core.leaves import MappedLeaf

CHUNK = 2**20
"""Elements that are looked at together for NaN: more would leave the cache."""


@dataclass(frozen=True)
class Place:
    """Where a canonical leaf is: the slot, how it lies in it, and the path in the checkpoint."""

    slot: Slot
    leaf: MappedLeaf
    path: TreePath


@dataclass
class Source:
    """A checkpoint and where everything in it is.

    Attributes:
        checkpoint: opened.
        located: as which library's.
        nonfinite: whether NaN and infinite values are taken over.
    """

    checkpoint: Checkpoint
    located: Located
    nonfinite: bool = False
    _last: tuple[TreePath, np.ndarray] | None = field(default=None, init=False)

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Canonical name to its place."""
        located = self.located
        return {
            leaf.name: Place(slot, leaf, located.places[slot.path])
            for slot in located.template.slots
            if slot.path in located.places
            for leaf in slot.held
        }

    @property
    def backend(self) -> str:
        """Whose checkpoint it is."""
        return self.located.model.port.backend

    def random_paths(self) -> list[TreePath]:
        """Where in it a library's own random state is."""
        slots = [slot for slot in self.located.template.slots if slot.role == "random"]
        return [self.located.places[slot.path] for slot in slots if slot.path in self.located.places]

    def read(self, path: TreePath) -> np.ndarray:
        """One leaf as it lies in the checkpoint; the last is kept, for a packed one is asked for several times.

        Raises:
            CheckpointError: it cannot be read, or holds a NaN or an infinite value.
        """
        if self._last is None or self._last[0] != path:
            self._last = None  # before the next is read: two are never held at once
            array = self.checkpoint.read(path)
            if not self.nonfinite:
                check_finite(f"{self.checkpoint.file}: leaf {shown(path)!r}", array)
            self._last = (path, array)
        return self._last[1]

    def canonical(self, name: str) -> np.ndarray:
        """One canonical leaf."""
        place = self.places[name]
        return place.leaf.to_canonical(self.read(place.path))

    def count(self, name: str) -> int:
        """The value of a count, whatever integer it is."""
        return int(self.read(self.places[name].path).reshape(()))

    def counts(self) -> dict[str, int]:
        """The optimizer's own counts of its updates, by canonical name."""
        return {
            name: self.count(name)
            for name, place in self.places.items()
            if is_count(place.slot) and name.startswith(OPTIMIZER) and name.endswith("/count")
        }


def check_finite(what: str, array: np.ndarray) -> None:
    """Raise where an array of floats holds a NaN or an infinite value.

    Raises:
        CheckpointError: naming the first.
    """
    if array.dtype.kind in "iub":
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        fine = np.isfinite(flat[start : start + CHUNK])
        if not fine.all():
            first = start + int(np.argmin(fine))
            index = list(map(int, np.unravel_index(first, array.shape)))
            raise CheckpointError(
                f"{what} is {flat[first]} at {index}. Take a checkpoint from before, or say --allow-nonfinite."
            )
