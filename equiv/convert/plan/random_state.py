"""What becomes of a library's own random state: Haiku and Linen have none, NNX keeps keys and counts in the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from equiv.convert.formats.checkpoint import CheckpointError
from equiv.convert.formats.tree_paths import TreePath, shown
from equiv.convert.plan.leaf_sources import Row
from equiv.convert.source.expected_leaves import Model, Slot, Template
from equiv.convert.source.located_checkpoint import Source


@dataclass(frozen=True)
class Random:
    """The user's choice.

    Attributes:
        policy: `seed`: as the library itself begins it from a key; `keep`: as it is, within one library; `omit`: the
            new checkpoint has none.
        seed: of that key.
    """

    policy: Literal["seed", "keep", "omit"]
    seed: int = 0

    def rows(self, source: Source, target: Model, template: Template) -> Mapping[TreePath, Row]:
        """Path in the target to what it is filled with.

        Raises:
            CheckpointError: there is nothing to keep.
        """
        slots = [slot for slot in template.slots if slot.role == "random"]
        if self.policy == "omit" or not slots:
            return {}
        if self.policy == "keep":
            return {slot.path: self._kept(source, target, slot) for slot in slots}
        made = jax.jit(partial(_fresh, target, slots))(jax.random.key(self.seed))
        rule = f"as {target.port.backend} begins it from seed {self.seed}"
        return {slot.path: Row(slot, "seeded", (), rule, partial(np.asarray, made[slot.path])) for slot in slots}

    def _kept(self, source: Source, target: Model, slot: Slot) -> Row:
        name = slot.held[0].name
        if source.backend != target.port.backend or name not in source.places:
            raise CheckpointError(
                f"{source.checkpoint.file}: it has no {shown(slot.path)!r} to keep. Say --random seed:N or omit."
            )
        path = source.places[name].path
        return Row(slot, "as it is", (path,), "", partial(source.read, path))

    def notes(self, source: Source, template: Template) -> list[str]:
        """What is left out or begun anew."""
        left = [shown(path) for path in source.random_paths()]
        theirs = [shown(slot.path) for slot in template.slots if slot.role == "random"]
        notes = []
        if self.policy != "keep" and left:
            notes.append(f"random state is left out: {', '.join(left)}")
        if self.policy == "seed" and theirs:
            notes.append(f"random state begins anew from seed {self.seed}: {', '.join(theirs)}")
        if self.policy == "omit" and theirs:
            notes.append(f"the new checkpoint has no random state: {', '.join(theirs)}")
        return notes


def chosen(text: str) -> Random:
    """A policy as it is written on the command line: `seed:N`, `keep` or `omit`.

    Raises:
        CheckpointError: it is none of these.
    """
    if text == "keep" or text == "omit":
        return Random(text)
    policy, _, seed = text.partition(":")
    if policy != "seed" or not seed.isascii() or not seed.isdigit():
        raise CheckpointError(f"--random {text!r}: no such policy. Say seed:N, keep or omit.")
    return Random("seed", int(seed))


def _fresh(target: Model, slots: list[Slot], key: Any) -> dict[TreePath, Any]:
    leaves = target.port.fresh(key)
    found = {slot.path: leaves[slot.native] for slot in slots if slot.native is not None}
    return {path: jax.random.key_data(leaf) if _is_key(leaf) else leaf for path, leaf in found.items()}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def typed(slot: Slot, array: np.ndarray) -> Any:
    """What orbax is given: keys as keys, so that they come back as such."""
    if not slot.spec.dtype.startswith("key<"):
        return array
    return jax.random.wrap_key_data(jnp.asarray(array))
