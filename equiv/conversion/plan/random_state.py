"""Conversion of a library's own random state: Haiku and Linen have none, NNX stores keys and counts in the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.conversion.formats.tree_paths import TreePath, path_text
from equiv.conversion.plan.leaf_sources import PlannedLeaf
from equiv.conversion.source.expected_leaves import CheckpointTemplate, LibraryModel, Slot
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint


@dataclass(frozen=True)
class RandomPolicy:
    """What to do with random state, as chosen by the user.

    Attributes:
        policy: `seed`: as the library itself initialises it from a key; `keep`: unchanged, within one library; `omit`:
            the new checkpoint has none.
        seed: the seed of that key.
    """

    policy: Literal["seed", "keep", "omit"]
    seed: int = 0

    def planned_leaves(
        self, source: LocatedCheckpoint, target: LibraryModel, template: CheckpointTemplate
    ) -> Mapping[TreePath, PlannedLeaf]:
        """Path in the target to its planned leaf, for all random state.

        Raises:
            CheckpointError: there is nothing to keep.
        """
        slots = [slot for slot in template.slots if slot.role == "random"]
        if self.policy == "keep":
            return self._kept_leaves(source, target, slots)
        if self.policy == "omit" or not slots:
            return {}
        made = jax.jit(partial(_fresh_random_leaves, target, slots))(jax.random.key(self.seed))
        rule = f"as {target.port.name} initialises it from seed {self.seed}"
        return {
            slot.path: PlannedLeaf(slot, "seeded", (), rule, partial(np.asarray, made[slot.path])) for slot in slots
        }

    def _kept_leaves(
        self, source: LocatedCheckpoint, target: LibraryModel, slots: list[Slot]
    ) -> Mapping[TreePath, PlannedLeaf]:
        kept = {slot.path: self._kept(source, target, slot) for slot in slots}
        taken = {path for row in kept.values() for path in row.sources}
        if lost := [path for path in source.random_paths() if path not in taken]:
            raise CheckpointError(
                f"{source.checkpoint.file}: {path_text(lost[0])!r} has no place in {target.port.name} to be kept in.",
                fix="Pass --random omit to leave its random state out.",
            )
        return kept

    def _kept(self, source: LocatedCheckpoint, target: LibraryModel, slot: Slot) -> PlannedLeaf:
        name = slot.held[0].name
        if name not in source.places and (others := source.located.other_random):
            raise CheckpointError(
                f"{source.checkpoint.file}: it has no {path_text(slot.path)!r} to keep; its random state, first "
                f"{path_text(others[0])!r}, is that of another release of NNX: up to flax 0.10 layers share streams, "
                "from 0.11 on each has its own, and they draw other numbers.",
                fix="Pass --random seed:N or --random omit.",
            )
        if source.backend != target.port.name or name not in source.places:
            raise CheckpointError(
                f"{source.checkpoint.file}: it has no {path_text(slot.path)!r} to keep.",
                fix="Pass --random seed:N or --random omit.",
            )
        path = source.places[name].path
        return PlannedLeaf(slot, "unchanged", (path,), "", partial(source.read, path))

    def notes(self, source: LocatedCheckpoint, template: CheckpointTemplate) -> list[str]:
        """Notes on random state that is left out or initialised."""
        left = [path_text(path) for path in source.random_paths()]
        theirs = [path_text(slot.path) for slot in template.slots if slot.role == "random"]
        notes = []
        if self.policy != "keep" and left:
            notes.append(f"random state is left out: {', '.join(left)}")
        if self.policy == "seed" and theirs:
            notes.append(f"random state is initialised from seed {self.seed}: {', '.join(theirs)}")
        if self.policy == "omit" and theirs:
            notes.append(f"the new checkpoint has no random state: {', '.join(theirs)}")
        return notes


def parse_random_policy(text: str) -> RandomPolicy:
    """Parse a policy from the command line: `seed:N`, `keep` or `omit`.

    Raises:
        CheckpointError: the text is none of these.
    """
    if text == "keep" or text == "omit":
        return RandomPolicy(text)
    policy, _, seed = text.partition(":")
    if policy != "seed" or not seed.isascii() or not seed.isdigit():
        raise CheckpointError(f"--random {text!r}: no such policy.", fix="Pass seed:N, keep or omit.")
    return RandomPolicy("seed", int(seed))


def _fresh_random_leaves(target: LibraryModel, slots: list[Slot], key: Any) -> dict[TreePath, Any]:
    leaves = target.port.init(key)
    found = {slot.path: leaves[slot.native] for slot in slots if slot.native is not None}
    return {path: jax.random.key_data(leaf) if _is_prng_key(leaf) else leaf for path, leaf in found.items()}


def _is_prng_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def with_key_dtype(slot: Slot, array: np.ndarray) -> Any:
    """A leaf for orbax: key data wrapped as a typed key, so that it is restored as one."""
    if not slot.spec.dtype.startswith("key<"):
        return array
    return jax.random.wrap_key_data(jnp.asarray(array))
