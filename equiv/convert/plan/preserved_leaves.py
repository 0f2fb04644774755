"""Leaves that another library cannot hold bit for bit, kept beside its checkpoint for the way back."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equiv.convert.formats.checkpoint import CheckpointError, bytes_of, dtype_of
from equiv.convert.source.expected_leaves import Slot
from equiv.convert.source.located_checkpoint import Source
from equiv.core.layouts import of_updates


@dataclass(frozen=True)
class KeptLeaf:
    """A leaf as it was: one that only its library has, or one whose way there and back is rounded.

    It is no longer true once the model has been trained elsewhere: it counts only while the leaves that it hangs on are
    what they were.

    Attributes:
        backend: the library that has it.
        place: where in that library's own tree.
        dtype: in that library.
        shape: in that library.
        data: its bytes, in base64.
        beside: the canonical leaves that it hangs on, which all libraries have.
        digest: of those.
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
            return np.frombuffer(base64.b64decode(self.data), dtype_of(self.dtype)).reshape(self.shape)
        except ValueError as error:
            raise CheckpointError(
                f"the manifest's copy of {self.place} is not whole. Move the manifest away to go on without it."
            ) from error

    def fits(self, source: Source, slot: Slot) -> bool:
        """Whether it is a slot's leaf, and still true of a checkpoint."""
        return (
            slot.role == "variable"  # what an optimizer keeps of a parameter has its place, shape and dtype
            and (self.place, self.dtype, tuple(self.shape)) == (str(slot.native), slot.spec.dtype, slot.spec.shape)
            and all(name in source.places for name in self.beside)
            and _digest(source, self.beside) == self.digest
        )


def keep(source: Source) -> list[KeptLeaf]:
    """The leaves of a checkpoint that another library would not give back bit for bit."""
    kept = []
    for slot in source.located.template.slots:
        if slot.role == "variable" and (beside := _beside(source, slot)):
            array = source.read(source.located.places[slot.path])
            data = base64.b64encode(bytes_of(array)).decode()
            backend, shape = source.located.model.port.backend, tuple(array.shape)
            kept.append(
                KeptLeaf(backend, str(slot.native), str(array.dtype), shape, data, beside, _digest(source, beside))
            )
    return kept


def _beside(source: Source, slot: Slot) -> tuple[str, ...]:
    """What a leaf hangs on that does not survive the way; nothing for all others."""
    if any(of_updates(leaf.layout) != leaf.layout for leaf in slot.held):
        return tuple(leaf.name for leaf in slot.held)
    if not slot.held[0].own:
        return ()
    # `bn/mean.counter` belongs to `bn/mean`.
    name = slot.held[0].name
    return tuple(sorted((other for other in source.places if name.startswith(f"{other}.")), key=len)[-1:])


def _digest(source: Source, names: Sequence[str]) -> str:
    """SHA-256 of canonical leaves, one after the other."""
    whole = hashlib.sha256()
    for name in names:
        whole.update(bytes_of(source.canonical(name)))
    return whole.hexdigest()
