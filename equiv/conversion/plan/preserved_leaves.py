"""Leaves that another library cannot hold bit for bit, preserved in the manifest for the way back."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equiv.conversion.formats.checkpoint import CheckpointError, bytes_of, dtype_named
from equiv.conversion.source.expected_leaves import Slot
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint
from equiv.core.layouts import optimizer_layout


@dataclass(frozen=True)
class PreservedLeaf:
    """A leaf as it was: one that only its library has, or one that a round trip would change by rounding.

    It is outdated once the model has been trained elsewhere: it is used only while the leaves that it depends on are
    unchanged.

    Attributes:
        backend: the library that has it.
        place: its path in that library's own tree.
        dtype: its dtype in that library.
        shape: its shape in that library.
        data: its bytes, in base64.
        beside: the canonical leaves that it depends on, which all libraries have.
        digest: SHA-256 of those.
    """

    backend: str
    place: str
    dtype: str
    shape: tuple[int, ...]
    data: str
    beside: tuple[str, ...]
    digest: str

    def array(self) -> np.ndarray:
        """The leaf.

        Raises:
            CheckpointError: the manifest has been changed.
        """
        try:
            return np.frombuffer(base64.b64decode(self.data), dtype_named(self.dtype)).reshape(self.shape)
        except ValueError as error:
            raise CheckpointError(
                f"the manifest's copy of {self.place} is incomplete.",
                fix="Move the manifest away to convert without it.",
            ) from error

    def fits(self, source: LocatedCheckpoint, slot: Slot) -> bool:
        """Whether it is the leaf of a slot, and still valid for a checkpoint."""
        return (
            slot.role == "variable"  # optimizer state has the path, shape and dtype of its parameter
            and (self.place, self.dtype, tuple(self.shape)) == (str(slot.native), slot.spec.dtype, slot.spec.shape)
            and all(name in source.places for name in self.beside)
            and _digest(source, self.beside) == self.digest
        )


def preserve_leaves(source: LocatedCheckpoint) -> list[PreservedLeaf]:
    """The leaves of a checkpoint that a round trip through another library would not restore bit for bit."""
    kept = []
    for slot in source.located.template.slots:
        if slot.role == "variable" and (beside := _dependencies(source, slot)):
            array = source.read(source.located.places[slot.path])
            data = base64.b64encode(bytes_of(array)).decode()
            backend, shape = source.located.model.port.name, tuple(array.shape)
            kept.append(
                PreservedLeaf(backend, str(slot.native), str(array.dtype), shape, data, beside, _digest(source, beside))
            )
    return kept


def _dependencies(source: LocatedCheckpoint, slot: Slot) -> tuple[str, ...]:
    """Canonical leaves that a leaf to be preserved depends on; empty for all other leaves."""
    if any(optimizer_layout(leaf.layout) != leaf.layout for leaf in slot.held):
        return tuple(leaf.name for leaf in slot.held)
    if not slot.held[0].library_only:
        return ()
    # `bn/mean.counter` belongs to `bn/mean`.
    name = slot.held[0].name
    return tuple(sorted((other for other in source.places if name.startswith(f"{other}.")), key=len)[-1:])


def _digest(source: LocatedCheckpoint, names: Sequence[str]) -> str:
    """SHA-256 of canonical leaves, concatenated."""
    whole = hashlib.sha256()
    for name in names:
        whole.update(bytes_of(source.canonical(name)))
    return whole.hexdigest()
